"""Train for longer than planned."""

from __future__ import annotations

from steadygrad.errors import UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training.setup import TrainingSetup

__all__ = ["longer_training"]


@remedy(
    Card(
        name="longer_training",
        treats=(Symptom.LEARNING_RATE,),
        site=Site.OPTIMIZER,
        summary="Plan more optimizer steps.",
        reference="Goodfellow et al., Deep Learning, 2016, sec. 7.8 and 11.4",
        hurts="A small data set is overfitted; a schedule made for the old length ends early.",
        cost="times as many steps",
        not_for="A training that stands still: it will stand still for longer.",
        formula="steps <- times * steps",
    )
)
def longer_training(setup: TrainingSetup, *, times: int = 4) -> TrainingSetup:
    """Multiply the planned length of the training.

    Args:
        setup: The set-up to change.
        times: Factor, a whole number of 1 or more.
    """
    if times < 1 or times != int(times):
        raise UsageError(f"longer_training: expected times to be a whole number of at least 1, got {times}.")
    return setup.replace(steps=int(times) * setup.steps)
