"""Single trainings as plain functions of their arguments, so that they can run in any process."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from steadygrad.doctor.apply import apply
from steadygrad.errors import SteadygradError
from steadygrad.records import Prescription, Run, Step
from steadygrad.training import Training, TrainingSetup, evaluate, search_learning_rate, seeded

__all__ = ["Answer", "Patients", "RateTask", "TrainTask", "problem_of", "run_rate_task", "run_train_task"]

MOST_LOSSES = 200  # kept of a run


@dataclass(frozen=True)
class Patients:
    """The set-ups that trainings of one stage are made of."""

    given: TrainingSetup
    reference: TrainingSetup | None = None


@dataclass(frozen=True)
class RateTask:
    """Find a learning rate, for findings ``answers``, by short trainings of ``steps`` steps each."""

    prescription: Prescription
    steps: int
    seed: int
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainTask:
    """Train a prescription once and score it on the set-up's validation data."""

    prescription: Prescription
    seed: int
    reference: bool = False
    keep_weights: bool = False


@dataclass(frozen=True)
class Answer:
    """What a task gave: a prescription made concrete and its run, or the problem it met.

    Attributes:
        prescription: What was done, with the learning rate that was found.
        run: The training; None for a search or after a problem.
        loss: The recent training loss that was reached.
        cost: Optimizer steps made.
        problem: Why it failed, one sentence; empty if it did not.
        weights: The state dict that the training ended with, if it was to be kept.
    """

    prescription: Prescription
    run: Run | None = None
    loss: float = math.inf
    cost: int = 0
    problem: str = ""
    weights: dict[str, Tensor] | None = None


def run_rate_task(patients: Patients, task: RateTask) -> Answer:
    """Return the prescription with the best learning rate in it and the training loss it reached."""
    try:
        treated = apply(task.prescription, patients.given, task.seed)
        with seeded(task.seed):
            search = search_learning_rate(treated, task.steps, task.seed)
    except Exception as error:  # on networks never seen before a remedy may fail in any way
        return Answer(task.prescription, problem=problem_of(error))
    return Answer(_with_rate(task, search.lr), loss=search.loss, cost=search.steps)


def run_train_task(patients: Patients, task: TrainTask) -> Answer:
    """Train for the set-up's planned steps and score.

    Raises:
        SetupError: If the set-up fails as it came. A remedy that fails, or makes the set-up fail, is an answer with a
            problem.
    """
    setup = patients.reference if task.reference else patients.given
    assert setup is not None
    try:
        treated = apply(task.prescription, setup, task.seed)
        with seeded(task.seed):
            training = Training(treated, task.seed)
            training.advance(treated.steps)
            _, score = evaluate(treated, training.model, treated.validation)
    except Exception as error:
        if not task.prescription.steps:
            raise
        return Answer(task.prescription, problem=problem_of(error))
    run = Run(
        seed=task.seed,
        steps=len(training.losses),
        score=-math.inf if training.diverged else score,
        losses=_thin(training.losses),
        diverged=training.diverged,
    )
    weights = training.model.state_dict() if task.keep_weights else None
    return Answer(task.prescription, run, training.recent_loss(), run.steps, weights=weights)


def problem_of(error: Exception) -> str:
    """Return why a remedy failed, in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[0] if isinstance(error, SteadygradError) else f"{type(error).__name__}: {lines[0]}"


def _with_rate(task: RateTask, lr: float) -> Prescription:
    """Return the prescription with the learning rate: in its optimizer's step if it has one, else as a last step."""
    steps = list(task.prescription.steps)
    for position, step in enumerate(steps):
        if step.remedy == "optimizer":
            steps[position] = replace(step, settings={**step.settings, "lr": lr})
            break
    else:
        steps.append(Step("learning_rate", {"lr": lr}, task.answers))
    return replace(task.prescription, steps=tuple(steps))


def _thin(losses: list[float]) -> tuple[float, ...]:
    """Return at most 200 of the losses, first and last included."""
    if len(losses) <= MOST_LOSSES:
        return tuple(losses)
    last = len(losses) - 1
    return tuple(losses[round(i * last / (MOST_LOSSES - 1))] for i in range(MOST_LOSSES))
