"""Single trainings as plain functions of their arguments, so that they can run in any process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from steadygrad.doctor.apply import apply
from steadygrad.errors import SteadygradError
from steadygrad.records import Prescription, Run
from steadygrad.training import Training, TrainingSetup, evaluate, seeded

__all__ = ["Answer", "Patients", "TrainTask", "problem_of", "run_train_task"]

MOST_LOSSES = 200  # kept of a run
LOOKS = (0.25, 0.5)  # shares of the steps after which a training that may end early is scored


@dataclass(frozen=True)
class Patients:
    """The set-ups that trainings of one stage are made of."""

    given: TrainingSetup
    reference: TrainingSetup | None = None


@dataclass(frozen=True)
class TrainTask:
    """Train a prescription once, for ``steps`` or as long as planned, and score it on the validation data.

    A training ends after a quarter or half of its steps if its score is ``enough`` by then, and after half of them if
    it has not come beyond ``hopeless``.
    """

    prescription: Prescription
    seed: int
    reference: bool = False
    keep_weights: bool = False
    steps: int | None = None
    enough: float = math.inf
    hopeless: float = -math.inf


@dataclass(frozen=True)
class Answer:
    """What a task gave: the run of a prescription, or the problem it met.

    Attributes:
        prescription: What was done.
        run: The training; None after a problem.
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
            score = _score_reached(treated, training, task)
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


def _score_reached(treated: TrainingSetup, training: Training, task: TrainTask) -> float:
    """Train to the end, or until the task has its answer, and return the score."""
    steps = task.steps or treated.steps
    early = LOOKS if task.enough < math.inf or task.hopeless > -math.inf else ()
    for share in (*early, 1.0):
        training.advance(math.ceil(share * steps) - len(training.losses))
        _, score = evaluate(treated, training.model, treated.validation)
        if training.diverged or score >= task.enough or (share == LOOKS[-1] and score <= task.hopeless):
            break
    return score


def problem_of(error: Exception) -> str:
    """Return why a remedy failed, in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[0] if isinstance(error, SteadygradError) else f"{type(error).__name__}: {lines[0]}"


def _thin(losses: list[float]) -> tuple[float, ...]:
    """Return at most 200 of the losses, first and last included."""
    if len(losses) <= MOST_LOSSES:
        return tuple(losses)
    last = len(losses) - 1
    return tuple(losses[round(i * last / (MOST_LOSSES - 1))] for i in range(MOST_LOSSES))
