"""Diagnose, try remedies, choose by outcome, prove on fresh seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from steadygrad.diagnosis import diagnose
from steadygrad.doctor.apply import apply
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.reference import reference_setup
from steadygrad.doctor.runner import Progress, Runner
from steadygrad.doctor.search import choose, search
from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.doctor.verify import train_pairs
from steadygrad.doctor.yardstick import GOAL_SHARE, Yardstick, yardstick
from steadygrad.errors import UsageError
from steadygrad.records import Diagnosis, Outcome, Prescription, Prospect, Run, Trial, Verdict
from steadygrad.training import (
    Data,
    Executor,
    Serial,
    TrainingSetup,
    input_tensors,
    one_pass,
    seeded,
    split,
    target_of,
)
from steadygrad.training.batches import generators_of

__all__ = ["treat"]

HELD_OUT = 0.2  # share of the training data that chooses between trials
# A set-up with findings is left alone if it learns as well as a cure must (GOAL_SHARE); one without findings from this
# share on, for it may be small or slow on purpose.
HEALTHY_SHARE = 0.85
PROOF_SEEDS = 3


def treat(
    setup: TrainingSetup,
    budget: Budget | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Treatment:
    """Find out what is wrong with a set-up, try remedies, and prove the best one on fresh seeds.

    Trials are chosen on a part of the training data; the validation data only score the proof. A set-up that learns as
    well as a sound shallow network is left alone, whatever the findings. The set-up given and all random states stay
    as they are. A budget in trials and steps gives the same treatment for the same seed and executor.

    Args:
        setup: What to treat; needs an optimizer.
        budget: What may be spent.
        seed: Seed of the search; the proof uses the three seeds after it.
        executor: Where trainings run; in this process by default.
        progress: Called as trainings end.

    Raises:
        UsageError: If the set-up has no optimizer.
        SetupError: If the set-up fails as it came.
    """
    budget = budget or Budget()
    if setup.optimizer is None:
        raise UsageError(
            "treat: expected a set-up with an optimizer, got None. "
            "Pass optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)."
        )
    deadline = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
    runner = Runner(executor or Serial(), progress, deadline)
    with seeded(seed, *generators_of(setup.train), *generators_of(setup.validation)):
        found = examine(setup, budget, seed, runner)
        treatment = found.treatment
        if found.chosen is not None:
            treatment = _proven(treatment, found.chosen, found.setup, seed, runner)
    return replace(treatment, notes=tuple(dict.fromkeys(runner.notes)))


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found and tried before anything is proven.

    Attributes:
        treatment: The course so far.
        setup: The set-up with validation data and the steps that the budget allows.
        chosen: What is to be proven; None if nothing is.
        cost: Optimizer steps spent, the forecast and the shallow network included.
    """

    treatment: Treatment
    setup: TrainingSetup
    chosen: Prescription | None
    cost: int


def examine(given: TrainingSetup, budget: Budget, seed: int, runner: Runner) -> Examination:
    """Diagnose, and search for a cure if one is needed."""
    setup = _with_validation(given.replace(steps=budget.steps or given.steps), seed, runner.notes)
    diagnosis = diagnose(given, forecast=True)
    practice = setup.replace(**dict(zip(("train", "validation"), _parts(setup, seed), strict=True)))
    assert diagnosis.forecast is not None
    baseline: Trial | None = None
    held = yardstick(practice, practice.validation)
    cost = diagnosis.forecast.steps

    def ended(verdict: Verdict, trials: Sequence[Trial], chosen: Prescription | None = None) -> Examination:
        return Examination(Treatment(diagnosis, tuple(trials), verdict, given), setup, chosen, cost)

    nonfinite = _nonfinite(practice.train) or _nonfinite(practice.validation)
    prospect = diagnosis.forecast.prospect
    if nonfinite or prospect is Prospect.TRAINS or (prospect is Prospect.UNSURE and diagnosis.healthy):
        baseline, held, spent = _baseline(practice, diagnosis, seed, runner)
        cost += spent
        if _to_be_left_alone(diagnosis, baseline.runs[0], held, runner.notes):
            return ended(Verdict.HEALTHY, [baseline])
        if nonfinite:
            runner.notes.append("The training data hold NaN or infinity: no remedy can help before they are repaired.")
            return ended(Verdict.NOT_CURED, [baseline])
    short, trials = search(practice, diagnosis, held, budget, seed, runner)
    chosen = choose(trials, short, held)
    cost += short.cost + sum(trial.cost for trial in trials)
    trials = [baseline or short, *(replace(t, outcome=Outcome.CHOSEN) if t is chosen else t for t in trials)]
    if chosen is None and baseline is None:  # nothing beats it: is it as good as it gets?
        baseline, held, spent = _baseline(practice, diagnosis, seed, runner)
        cost += spent
        if _to_be_left_alone(diagnosis, baseline.runs[0], held, runner.notes):
            return ended(Verdict.HEALTHY, [baseline, *trials[1:]])
        trials[0] = baseline
    scores = (held.reference or -math.inf, *(trial.score for trial in trials))
    if chosen is None and not any(map(held.beyond_luck, scores)):
        runner.notes.append(
            "Nothing that was trained did better than a constant answer: look at the data first, whether these "
            "inputs can tell the targets."
        )
    return ended(Verdict.NOT_CURED, trials, chosen.prescription if chosen else None)


def _with_validation(setup: TrainingSetup, seed: int, notes: list[str]) -> TrainingSetup:
    """Hold out a part of the training data where no validation data were given."""
    if setup.validation is not None:
        return setup
    train, validation = _parts(setup, seed)
    notes.append(
        "There are too few data to hold any out: the proof was scored on the data that were learned."
        if train is validation
        else f"No validation data were given: the proof was scored on {HELD_OUT:.0%} of the training data, held out."
    )
    return setup.replace(train=train, validation=validation)


def _parts(setup: TrainingSetup, seed: int) -> tuple[Data, Data]:
    """Split the training data; of an iterable, no more is read than the planned steps can use."""
    return split(setup.train, HELD_OUT, seed, most_batches=math.ceil(setup.steps / (1 - HELD_OUT)) + 1)


def _baseline(practice: TrainingSetup, diagnosis: Diagnosis, seed: int, runner: Runner) -> tuple[Trial, Yardstick, int]:
    """Train the set-up as it came, and the shallow network where one fits and is needed; return the steps spent too.

    What comes near a perfect answer is held against that.
    """
    stage = "training it as it is"
    (given,) = runner.run(stage, run_train_task, Patients(practice), [TrainTask(Prescription(), seed)], practice.steps)
    trial = Trial(given.prescription, (given.run,) if given.run else (), reason="as it came", cost=given.cost)
    perfect = replace(yardstick(practice, practice.validation), reference=1.0)
    enough = perfect.at(HEALTHY_SHARE if diagnosis.healthy else GOAL_SHARE)
    if enough is not None and trial.score >= enough:
        return trial, perfect, given.cost
    shallow, sound = reference_setup(practice) or (None, None)
    tasks = [TrainTask(sound, seed, reference=True)] if sound else []
    patients = Patients(practice, shallow)
    others = runner.run("training a shallow network", run_train_task, patients, tasks, practice.steps) if tasks else []
    references = [answer.run.score for answer in others if answer.run is not None]
    held = yardstick(practice, practice.validation, references)
    if held.chance is not None:
        sentence = f"On the data that chose between trials, a constant answer scores {held.chance:.3f} {held.metric}"
        runner.notes.append(sentence + (f", a sound shallow network {references[0]:.3f}." if references else "."))
    return trial, held, given.cost + sum(answer.cost for answer in others)


def _to_be_left_alone(diagnosis: Diagnosis, run: Run, held: Yardstick, notes: list[str]) -> bool:
    """Whether a set-up learns well enough as it is."""
    enough = held.at(HEALTHY_SHARE if diagnosis.healthy else GOAL_SHARE)
    if enough is None:
        learns = held.beyond_luck(run.score) and (held.chance is not None or _falls(run.losses))
        if diagnosis.healthy and learns:
            notes.append("It was judged by its findings and its loss: there is no shallow network to compare with.")
        return diagnosis.healthy and learns
    if run.score >= enough and not diagnosis.healthy:
        notes.append("There are findings, but it learns as well as a sound shallow network: it is left alone.")
    return run.score >= enough


def _falls(losses: tuple[float, ...]) -> bool:
    """Whether the last tenth of the losses lies below the first."""
    tenth = max(1, len(losses) // 10)
    return fmean(losses[-tenth:]) < fmean(losses[:tenth])


def _nonfinite(data: Data) -> bool:
    """Whether inputs or targets hold NaN or infinity."""
    return any(
        not bool(tensor.isfinite().all())
        for batch in one_pass(data, 1000, torch.device("cpu"))
        for tensor in (*input_tensors(batch), target_of(batch))
        if isinstance(tensor, Tensor)
    )


def _proven(
    unproven: Treatment, prescription: Prescription, setup: TrainingSetup, seed: int, runner: Runner
) -> Treatment:
    """Add the proof to a treatment, and the cure if it is one."""
    seeds = range(seed + 1, seed + 1 + PROOF_SEEDS)
    pairs = train_pairs(prescription, setup, seeds, runner)
    proof = pairs.proof
    runner.notes += [f"A treated training failed: {problem}" for problem in pairs.problems]
    if proof.reaches(proof.before, HEALTHY_SHARE / GOAL_SHARE):
        runner.notes.append("On fresh seeds it learns well enough as it came: it is left alone.")
        return replace(unproven, verdict=Verdict.HEALTHY, proof=proof)
    if proof.verdict is Verdict.NOT_CURED:
        if not any(math.isfinite(run.score) for run in proof.after) and _nonfinite(setup.validation):
            runner.notes.append("The validation data hold NaN or infinity: no score on them can prove anything.")
        return replace(unproven, proof=proof)
    if proof.goal is None:
        runner.notes.append(
            "No shallow network fits these data or learns them: no goal is known, and improved is the most."
        )
    cured = apply(prescription, unproven.setup, seeds[0])
    return replace(
        unproven,
        verdict=proof.verdict,
        setup=cured,
        prescription=prescription,
        proof=proof,
        diagnosis_after=diagnose(cured),
        weights=pairs.weights,
    )
