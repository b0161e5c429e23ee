"""Try prescriptions by short trainings, and choose one by outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from steadygrad.doctor.apply import apply
from steadygrad.doctor.prescribe import codes_of, prescribe, rationale
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.trials import (
    Answer,
    Patients,
    RateTask,
    TrainTask,
    problem_of,
    run_rate_task,
    run_train_task,
)
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.records import Diagnosis, Outcome, Prescription, Symptom, Trial
from steadygrad.training import TrainingSetup

__all__ = ["choose", "search"]

# Short trainings that look for a learning rate take this share of the planned steps, within bounds.
RATE_STEPS_SHARE, RATE_STEPS_LEAST, RATE_STEPS_MOST = 0.125, 20, 100
RATES_MOST = 7
# Scores that lie this share of the way above chance apart count as equal; then the smaller change is chosen.
TIE_SHARE = 0.01


def search(practice: TrainingSetup, diagnosis: Diagnosis, trials: int, seed: int, runner: Runner) -> list[Trial]:
    """Find a learning rate for every prescription, then train the better half to the end; return a trial for each.

    Args:
        practice: What is trained; its validation data score the trials.
        diagnosis: What was found in it.
        trials: Prescriptions to try at most.
        seed: Seed of all trainings.
        runner: Runs them; both stages may be cut short.
    """
    candidates = _fitting(prescribe(diagnosis, practice.redraw is None), practice, seed, runner.notes)[:trials]
    steps = min(max(round(practice.steps * RATE_STEPS_SHARE), RATE_STEPS_LEAST), RATE_STEPS_MOST, practice.steps)
    codes = codes_of(diagnosis, {Symptom.LEARNING_RATE})
    rates = runner.run(
        "finding learning rates",
        run_rate_task,
        Patients(practice),
        [RateTask(candidate, steps, seed, codes) for candidate in candidates],
        steps * RATES_MOST,
        cut=True,
    )
    finalists = _better_half(rates)
    ends = runner.run(
        "training the better half",
        run_train_task,
        Patients(practice),
        [TrainTask(answer.prescription, seed) for answer in finalists],
        practice.steps,
        cut=True,
    )
    ended = {id(answer): end for answer, end in zip(finalists, ends, strict=False)}
    return [_trial(answer, ended.get(id(answer))) for answer in rates]


def choose(trials: Sequence[Trial], baseline: Trial, held: Yardstick) -> Trial | None:
    """Return the smallest change that reaches the goal, else the best one; None if none beats luck and the baseline.

    Args:
        trials: What was tried, the smallest change first.
        baseline: The set-up as it came.
        held: The yardstick on the data that scored them.
    """
    able = [trial for trial in trials if held.beyond_luck(trial.score)]
    best = max((trial.score for trial in able), default=-math.inf)
    floor = baseline.score if held.chance is None else held.chance
    tie = TIE_SHARE * (best - floor) if math.isfinite(floor) else 0.0
    if best <= baseline.score + tie:
        return None
    enough = held.goal if held.goal is not None and held.goal <= best else best - tie
    return next(trial for trial in able if trial.score >= enough)


def _better_half(rates: Sequence[Answer]) -> list[Answer]:
    """Return those that learned fastest, the best first, and last the smallest change: if it does, it is the cure."""
    able = [answer for answer in rates if math.isfinite(answer.loss)]
    half = sorted(able, key=lambda answer: answer.loss)[: math.ceil(len(able) / 2)]
    return half + [answer for answer in able[:1] if answer not in half]


def _fitting(
    candidates: Iterable[Prescription], setup: TrainingSetup, seed: int, notes: list[str]
) -> list[Prescription]:
    """Leave out the steps that do not fit the set-up, note why, and drop what then is there twice."""
    candidates = list(candidates)
    problems: dict[str, str] = {}
    for name, step in {step.remedy: step for candidate in candidates for step in candidate.steps}.items():
        try:
            apply(Prescription((step,)), setup, seed)
        except Exception as error:  # on networks never seen before a remedy may fail in any way
            problems[name] = problem_of(error)
            notes.append(f"Not tried: {problems[name]}")
    kept: list[Prescription] = []
    for candidate in candidates:
        steps = tuple(step for step in candidate.steps if step.remedy not in problems)
        if steps not in [other.steps for other in kept]:
            kept.append(Prescription(steps, rationale(steps)))
    return kept


def _trial(search: Answer, end: Answer | None) -> Trial:
    """Turn the search for a learning rate, and the training that followed if any, into a trial."""
    cost = search.cost + (end.cost if end is not None else 0)
    if problem := search.problem or (end.problem if end is not None else ""):
        return Trial(search.prescription, outcome=Outcome.NOT_APPLICABLE, reason=problem, cost=cost)
    if end is None or end.run is None:
        reached = f"short trainings reached a loss of {search.loss:.3g}"
        reason = reached if math.isfinite(search.loss) else "short trainings diverged at every learning rate"
        return Trial(search.prescription, outcome=Outcome.STOPPED, reason=reason, cost=cost)
    return Trial(end.prescription, (end.run,), cost=cost)
