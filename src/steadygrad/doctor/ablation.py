"""Which parts of a combination matter: pairs of short trainings, one part left out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from steadygrad.doctor.prescribe import rationale
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.search import FIRST_LEAST, FIRST_SHARE, TIE_SHARE
from steadygrad.doctor.trials import Answer, Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.records import Outcome, Part, Prescription, Step, Trial
from steadygrad.training import TrainingSetup

__all__ = ["ablate"]


def ablate(
    chosen: Trial, practice: TrainingSetup, held: Yardstick, room: int, seed: int, runner: Runner
) -> tuple[Trial, tuple[Part, ...], list[Trial]]:
    """Leave each part of a combination out of a short training, and for good if all goes as well without.

    Parts that answer no finding and that a short training does not miss are left out together, if a longer training of
    the search then comes as far without them: on the short one alone, what keeps a long training from diverging would
    be lost. Meyes et al. 2019, Ablation Studies in Artificial Neural Networks.

    Args:
        chosen: What is taken apart; alone, a step is not.
        practice: What is trained; its validation data score.
        held: What scores are held against.
        room: Trainings that the budget still allows; with fewer than are needed, nothing is done.
        seed: Seed of all trainings, that of the search.
        runner: Runs them.

    Returns:
        What is left of the chosen trial, what each part brings, and a trial for each training that was made.
    """
    steps = chosen.prescription.steps
    parts = [step for step in steps if step.remedy != "longer_training"]
    if len(parts) < 2 or room < len(parts) + 2 or time.monotonic() >= runner.deadline:
        return chosen, (), []

    def train(prescriptions: list[Prescription], length: int) -> list[Answer]:
        tasks = [TrainTask(each, seed, steps=length) for each in prescriptions]
        return runner.run("asking what matters", run_train_task, Patients(practice), tasks, length)

    length = min(max(math.ceil(FIRST_SHARE * practice.steps), FIRST_LEAST), chosen.runs[-1].steps)
    trials: list[Trial] = []
    score = next((run.score for run in chosen.runs if run.steps == length), None)
    if score is None:
        (whole,) = train([chosen.prescription], length)
        trials, score = [_trial(whole, "all parts, to compare with")], _score(whole)
    if not held.beyond_luck(score):
        return chosen, (), trials
    others = train([_without(steps, [part]) for part in parts], length)
    trials += [_trial(other, f"without {part.remedy}") for part, other in zip(parts, others, strict=True)]
    found = [Part(part, score, _score(other), length) for part, other in zip(parts, others, strict=True)]
    needless = _needless(found, held)
    if not needless:
        return chosen, tuple(found), trials
    pair = next((run for run in chosen.runs if run.steps > length), chosen.runs[-1])
    (leaner,) = train([_without(steps, [part.step for part in needless])], pair.steps)
    trials.append(_trial(leaner, "without what was not missed"))
    if _score(leaner) < pair.score:
        return chosen, tuple(found), trials
    return trials[-1], tuple(replace(part, dropped=part in needless) for part in found), trials


def _needless(parts: list[Part], held: Yardstick) -> list[Part]:
    """Return the parts that answer no finding and are not missed; never all of them."""
    whole = parts[0].whole
    missed = whole - (TIE_SHARE * (whole - held.chance) if held.chance is not None else 0.0)
    needless = [part for part in parts if part.without >= missed and not part.step.answers]
    if len(needless) == len(parts):  # each does without the others: the one missed most stays
        needless.remove(min(needless, key=lambda part: part.without))
    return needless


def _without(steps: Iterable[Step], left_out: list[Step]) -> Prescription:
    kept = tuple(step for step in steps if step not in left_out)
    return Prescription(kept, rationale(kept))


def _score(answer: Answer) -> float:
    return answer.run.score if answer.run is not None else -math.inf


def _trial(answer: Answer, reason: str) -> Trial:
    runs = () if answer.run is None else (answer.run,)
    return Trial(answer.prescription, runs, Outcome.TRIED, answer.problem or reason, answer.cost)
