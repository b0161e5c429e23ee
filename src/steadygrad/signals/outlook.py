"""A handful of real steps on a copy of a set-up: how its loss and its score begin to move."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from steadygrad.records import Outlook
from steadygrad.training import (
    Batch,
    Task,
    Training,
    TrainingSetup,
    chance_of,
    device_of,
    evaluate,
    labels_of,
    one_pass,
    row_count,
    run_batch,
    seeded,
    target_of,
)

__all__ = ["OUTLOOK_STEPS", "look_ahead"]

OUTLOOK_STEPS = 20
# Loss and score before and after are those of this many training samples, always the same.
_SAMPLES, _MOST_BATCHES = 300, 150


def look_ahead(setup: TrainingSetup, steps: int = OUTLOOK_STEPS) -> Outlook:
    """Train a copy of the set-up for a few steps with its own optimizer and say how loss and score moved.

    The set-up and all random states stay as they are.

    Args:
        setup: What to try; needs an optimizer.
        steps: Steps to make, or the planned length if that is shorter.

    Raises:
        SetupError: If the model, the loss, the optimizer or the data fail.
    """
    with seeded(setup.seed):
        batches = _samples(setup)
        training = Training(setup, setup.seed)
        before = _loss(setup, training, batches)
        task, score_before = evaluate(setup, training.model, batches)
        training.advance(min(steps, setup.steps))
        after = math.inf if training.diverged else _loss(setup, training, batches)
        score_after = -math.inf if training.diverged else evaluate(setup, training.model, batches)[1]
    return Outlook(
        losses=tuple(training.losses),
        before=before,
        after=after,
        score_before=score_before,
        score_after=score_after,
        metric=task.name,
        chance=chance_of(task, _labels(task, batches)),
    )


def _samples(setup: TrainingSetup) -> list[Batch]:
    """Return the first batches of a shuffled pass that hold enough samples together."""
    batches: list[Batch] = []
    rows = 0
    for batch in islice(one_pass(setup.train, setup.batch_size, device_of(setup), setup.seed), _MOST_BATCHES):
        batches.append(batch)
        rows += row_count(batch) or 1
        if rows >= _SAMPLES:
            break
    return batches


def _labels(task: Task, batches: list[Batch]) -> Tensor:
    scored = task.kind in ("classes", "binary")
    return torch.cat([labels_of(task, target_of(batch)) for batch in batches]) if scored else torch.empty(0)


@torch.no_grad()
def _loss(setup: TrainingSetup, training: Training, batches: list[Batch]) -> float:
    """Return the mean loss over batches in evaluation mode."""
    training.model.eval()
    losses = [run_batch(setup, training.model, batch).loss.item() for batch in batches]
    training.model.train()
    return sum(losses) / len(losses)
