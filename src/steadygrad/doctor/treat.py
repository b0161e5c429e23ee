"""Diagnose, try remedies, choose by outcome, prove on fresh seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from steadygrad.diagnosis import diagnose
from steadygrad.doctor.ablation import ablate
from steadygrad.doctor.apply import apply
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.doubts import doubts
from steadygrad.doctor.prescribe import check_allowed
from steadygrad.doctor.reference import reference_setup
from steadygrad.doctor.runner import Progress, Runner
from steadygrad.doctor.search import choose, search
from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.doctor.verify import train_pairs
from steadygrad.doctor.yardstick import GOAL_SHARE, Yardstick, yardstick
from steadygrad.errors import SetupError, UsageError
from steadygrad.records import Diagnosis, Outcome, Part, Prescription, Prospect, Run, Trial, Verdict
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
# share on, for it may be small or slow on purpose. What surely will train, and has come half of the way to a perfect
# answer, needs no shallow network beside it.
HEALTHY_SHARE = 0.85
HALFWAY = 0.5
PROOF_SEEDS = 3


def treat(
    setup: TrainingSetup,
    budget: Budget | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress | None = None,
    allow: Collection[str] = (),
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
        allow: What may be changed that otherwise stays: ``"width"``, ``"depth"``, ``"data"`` (which rows are learned).

    Raises:
        UsageError: If the set-up has no optimizer, or ``allow`` names something else.
        SetupError: If the set-up fails as it came, or cannot be trained.
    """
    budget = budget or Budget()
    check_allowed(allow)
    if setup.optimizer is None:
        raise UsageError(
            "treat: expected a set-up with an optimizer, got None. "
            "Pass optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)."
        )
    deadline = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
    runner = Runner(executor or Serial(), progress, deadline)
    with seeded(seed, *generators_of(setup.train), *generators_of(setup.validation)):
        found = examine(setup, budget, seed, runner, allow)
        treatment = found.treatment
        if found.chosen is not None:
            treatment = _proven(treatment, found.chosen, found.setup, seed, runner)
    return replace(treatment, notes=tuple(dict.fromkeys(runner.notes)), doubts=doubts(treatment, found.held))


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found and tried before anything is proven.

    Attributes:
        treatment: The course so far.
        setup: The set-up with validation data and the steps that the budget allows.
        chosen: What is to be proven; None if nothing is.
        cost: Optimizer steps spent, the forecast and the shallow network included.
        held: What the trials' scores were held against.
    """

    treatment: Treatment
    setup: TrainingSetup
    chosen: Prescription | None
    cost: int
    held: Yardstick


def examine(
    given: TrainingSetup, budget: Budget, seed: int, runner: Runner, allow: Collection[str] = ()
) -> Examination:
    """Diagnose, and search for a cure if one is needed."""
    setup = _with_validation(given.replace(steps=budget.steps or given.steps), seed, runner.notes)
    diagnosis = diagnose(given, forecast=True)
    if diagnosis.forecast is None:
        worst = diagnosis.findings[0]
        raise SetupError(f"treat: expected a set-up that can be trained, but {worst.message}. {worst.advice}")
    practice = setup.replace(**dict(zip(("train", "validation"), _parts(setup, seed), strict=True)))
    baseline: Trial | None = None
    parts: tuple[Part, ...] = ()
    held = yardstick(practice, practice.validation)
    cost = diagnosis.forecast.steps

    def ended(verdict: Verdict, trials: Sequence[Trial], chosen: Prescription | None = None) -> Examination:
        return Examination(Treatment(diagnosis, tuple(trials), verdict, given, parts=parts), setup, chosen, cost, held)

    nonfinite = _nonfinite(practice.train) or _nonfinite(practice.validation)
    prospect = diagnosis.forecast.prospect
    if nonfinite or prospect is Prospect.TRAINS or (prospect is Prospect.UNSURE and diagnosis.healthy):
        baseline = _as_it_came(practice, diagnosis, held, seed, runner)
        cost += baseline.cost
        if _is_good(baseline, diagnosis, held, runner.notes):
            return ended(Verdict.HEALTHY, [baseline])
        if nonfinite and "data" not in allow:
            runner.notes.append(
                "The training data hold NaN or infinity: no remedy can help before they are repaired. "
                'With allow=("data",) incomplete rows may be left out.'
            )
            return ended(Verdict.NOT_CURED, [baseline])
        if not nonfinite and not _is_far(baseline, held):
            held, spent = _with_reference(practice, held, seed, runner)
            cost += spent
            if _to_be_left_alone(diagnosis, baseline.runs[0], held, runner.notes):
                return ended(Verdict.HEALTHY, [baseline])
    short, trials = search(
        practice, diagnosis, held, budget, seed, runner, allow if nonfinite else set(allow) - {"data"}
    )
    cost += short.cost + sum(trial.cost for trial in trials)
    chosen = choose(trials, short if baseline is None else max(short, baseline, key=lambda t: t.score), held)
    if chosen is not None and baseline is not None and held.reference is None and diagnosis.healthy:
        held = replace(held, reference=chosen.score)  # the best of what was tried, in place of a shallow network
        if _to_be_left_alone(diagnosis, baseline.runs[0], held, runner.notes):
            return ended(Verdict.HEALTHY, [baseline, *trials])
    if chosen is not None:
        leaner, parts, more = ablate(chosen, practice, held, budget.trials - len(trials), seed, runner)
        cost += sum(trial.cost for trial in more)
        trials, chosen = [*trials, *more], leaner
    trials = [baseline or short, *(replace(t, outcome=Outcome.CHOSEN) if t is chosen else t for t in trials)]
    if chosen is None and held.reference is None:  # nothing beats it: is it as good as it gets?
        if baseline is None:
            trials[0] = baseline = _as_it_came(practice, diagnosis, held, seed, runner)
            cost += baseline.cost
        good = _is_good(baseline, diagnosis, held, runner.notes)
        if not good:
            held, spent = _with_reference(practice, held, seed, runner)
            cost += spent
        if good or _to_be_left_alone(diagnosis, baseline.runs[0], held, runner.notes):
            return ended(Verdict.HEALTHY, trials)
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


def _as_it_came(practice: TrainingSetup, diagnosis: Diagnosis, held: Yardstick, seed: int, runner: Runner) -> Trial:
    """Train the set-up as it came, until it is good enough, or has shown nothing after half of its steps."""
    enough = _perfect(held).at(_enough(diagnosis))
    hopeless = -math.inf if held.chance is None else held.chance + held.luck
    task = TrainTask(Prescription(), seed, enough=math.inf if enough is None else enough, hopeless=hopeless)
    (given,) = runner.run("training it as it is", run_train_task, Patients(practice), [task], practice.steps)
    return Trial(given.prescription, (given.run,) if given.run else (), reason="as it came", cost=given.cost)


def _with_reference(practice: TrainingSetup, held: Yardstick, seed: int, runner: Runner) -> tuple[Yardstick, int]:
    """Train the shallow network where one fits; return the yardstick with it and the steps spent."""
    shallow, sound = reference_setup(practice) or (None, None)
    tasks = [TrainTask(sound, seed, reference=True)] if sound else []
    patients = Patients(practice, shallow)
    others = runner.run("training a shallow network", run_train_task, patients, tasks, practice.steps) if tasks else []
    references = [answer.run.score for answer in others if answer.run is not None]
    if held.chance is not None:
        sentence = f"On the data that chose between trials, a constant answer scores {held.chance:.3f} {held.metric}"
        runner.notes.append(sentence + (f", a sound shallow network {references[0]:.3f}." if references else "."))
    return yardstick(practice, practice.validation, references), sum(answer.cost for answer in others)


def _perfect(held: Yardstick) -> Yardstick:
    """Return a yardstick whose reference is a perfect answer: 1 for accuracy and for R2."""
    return replace(held, reference=1.0)


def _enough(diagnosis: Diagnosis) -> float:
    """Return the share of the way to a perfect answer from which on a set-up needs no comparison."""
    assert diagnosis.forecast is not None
    if not diagnosis.healthy:
        return GOAL_SHARE
    return HALFWAY if diagnosis.forecast.prospect is Prospect.TRAINS else HEALTHY_SHARE


def _is_good(baseline: Trial, diagnosis: Diagnosis, held: Yardstick, notes: list[str]) -> bool:
    """Whether a set-up comes so near to a perfect answer that nothing needs to be compared."""
    enough = _perfect(held).at(_enough(diagnosis))
    if enough is None or baseline.score < enough:
        return False
    assert held.chance is not None
    share = (baseline.score - held.chance) / (1 - held.chance)
    begin = "As it came" if diagnosis.healthy else "There are findings, but it learns: as it came"
    steps = f"{baseline.runs[0].steps} steps"
    notes.append(f"{begin} it went {share:.0%} of the way from chance to a perfect answer in {steps}: left alone.")
    return True


def _is_far(baseline: Trial, held: Yardstick) -> bool:
    """Whether a set-up has not come half of the way to a perfect answer: then remedies are tried at once."""
    halfway = _perfect(held).at(HALFWAY)
    return halfway is not None and baseline.score < halfway


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
