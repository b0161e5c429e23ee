"""Diagnose, try remedies, choose by outcome, prove on fresh seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadygrad.diagnosis import diagnose
from steadygrad.doctor.ablation import ablate
from steadygrad.doctor.apply import apply
from steadygrad.doctor.baseline import (
    HEALTHY_SHARE,
    is_far,
    is_good,
    is_to_be_left_alone,
    train_as_it_came,
    with_reference,
)
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.doubts import doubts
from steadygrad.doctor.prescribe import check_allowed
from steadygrad.doctor.runner import Progress, Runner
from steadygrad.doctor.search import choose, search, train_longest
from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.verify import train_pairs
from steadygrad.doctor.yardstick import GOAL_SHARE, Yardstick, yardstick
from steadygrad.errors import SetupError, UsageError
from steadygrad.records import Diagnosis, Outcome, Part, Prescription, Trial, Verdict
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
PROOF_SEEDS = 3
EVEN = 0.5  # probability of failing


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
    well as a sound shallow network is left alone, whatever the findings, and these become notes. The set-up given and
    all random states stay as they are. A budget in trials and steps gives the same treatment for the same seed and
    executor.

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
    if treatment.verdict is Verdict.HEALTHY:
        treatment = replace(treatment, diagnosis=treatment.diagnosis.harmless())
    return replace(treatment, notes=tuple(dict.fromkeys(runner.notes)), doubts=doubts(treatment, found.held))


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found and tried before anything is proven.

    Attributes:
        treatment: The course so far.
        setup: The set-up with validation data and the steps that the budget allows.
        chosen: What is to be proven; None if nothing is.
        held: What the trials' scores were held against.
    """

    treatment: Treatment
    setup: TrainingSetup
    chosen: Prescription | None
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
    held = yardstick(practice, practice.validation)
    course = _Course(given, setup, practice, diagnosis, held, seed, runner, diagnosis.forecast.steps)
    nonfinite = _nonfinite(practice.train) or _nonfinite(practice.validation)
    likely = diagnosis.healthy or diagnosis.forecast.probability < EVEN  # a finding may name what does no harm here
    if nonfinite or likely:
        baseline = course.as_it_came()
        if is_good(baseline, diagnosis, held, runner.notes):
            return course.ended(Verdict.HEALTHY, [baseline])
        if nonfinite and "data" not in allow:
            runner.notes.append(
                "The training data hold NaN or infinity: no remedy can help before they are repaired. "
                'With allow=("data",) incomplete rows may be left out.'
            )
            return course.ended(Verdict.NOT_CURED, [baseline])
        if not nonfinite and not is_far(baseline, held) and course.is_as_good_as_the_reference():
            return course.ended(Verdict.HEALTHY, [baseline])
    return _searched(course, budget, allow if nonfinite else set(allow) - {"data"})


@dataclass
class _Course:
    """What is known by now of a set-up under treatment."""

    given: TrainingSetup
    setup: TrainingSetup
    practice: TrainingSetup
    diagnosis: Diagnosis
    held: Yardstick
    seed: int
    runner: Runner
    cost: int
    baseline: Trial | None = None
    parts: tuple[Part, ...] = ()

    def as_it_came(self) -> Trial:
        """Train the set-up as it came, if that was not done yet."""
        if self.baseline is None:
            self.baseline = train_as_it_came(self.practice, self.diagnosis, self.held, self.seed, self.runner)
            self.cost += self.baseline.cost
        return self.baseline

    def is_as_good_as_the_reference(self, unbeaten: bool = False) -> bool:
        """Train the shallow network, and say whether the set-up as it came learns as well.

        Where nothing was found, a shallow network that is behind after half of its steps says enough.
        """
        hopeless = self.as_it_came().score if self.diagnosis.healthy else -math.inf
        self.held, spent = with_reference(self.practice, self.held, hopeless, self.seed, self.runner)
        self.cost += spent
        return self.learns_well(self.held, unbeaten)

    def is_unbeaten_and_good(self) -> bool:
        """Whether the set-up as it came, which nothing that was tried beats, learns well enough.

        Both are trained to tell, it and the shallow network, so far as that was not done.
        """
        if is_good(self.as_it_came(), self.diagnosis, self.held, self.runner.notes):
            return True
        if self.held.reference is None:
            return self.is_as_good_as_the_reference(unbeaten=True)
        return self.learns_well(self.held, unbeaten=True)

    def learns_well(self, held: Yardstick, unbeaten: bool = False) -> bool:
        """Whether the set-up as it came learns well enough beside what ``held`` refers to."""
        return is_to_be_left_alone(self.diagnosis, self.as_it_came().runs[0], held, self.runner.notes, unbeaten)

    def ended(self, verdict: Verdict, trials: Sequence[Trial], chosen: Prescription | None = None) -> Examination:
        """Return what it came to."""
        treatment = Treatment(self.diagnosis, tuple(trials), verdict, self.given, parts=self.parts, cost=self.cost)
        return Examination(treatment, self.setup, chosen, self.held)


def _searched(course: _Course, budget: Budget, allow: Collection[str]) -> Examination:
    """Search for a cure; where there is none, say whether the set-up is well enough as it came."""
    practice, diagnosis, seed, runner = course.practice, course.diagnosis, course.seed, course.runner
    baseline = course.baseline
    short, trials = search(practice, diagnosis, course.held, budget, seed, runner, allow, baseline is not None)
    course.cost += short.cost + sum(trial.cost for trial in trials)
    chosen = choose(trials, baseline or short, course.held)
    if chosen is None:  # nothing beats it: is it as good as it gets?
        if course.is_unbeaten_and_good():
            return course.ended(Verdict.HEALTHY, [course.as_it_came(), *trials])
        if budget.steps is None and len(trials) < budget.trials:
            late = train_longest(practice, [course.baseline or short, *trials], course.held, seed, runner)
            course.cost += sum(trial.cost for trial in late)
            chosen = choose(late, course.baseline or short, course.held)
            trials += late
    if chosen is None:
        return _not_cured(course, [course.baseline or short, *trials])
    # The best of what was tried stands in for a shallow network.
    stand_in = replace(course.held, reference=course.held.reference or chosen.score)
    if baseline is not None and diagnosis.healthy and course.learns_well(stand_in):
        return course.ended(Verdict.HEALTHY, [baseline, *trials])
    room = budget.trials - len(trials)
    chosen, course.parts, more = ablate(chosen, practice, course.held, room, seed, runner)
    course.cost += sum(trial.cost for trial in more)
    tried = [replace(t, outcome=Outcome.CHOSEN) if t is chosen else t for t in (*trials, *more)]
    return course.ended(Verdict.NOT_CURED, [course.baseline or short, *tried], chosen.prescription)


def _not_cured(course: _Course, trials: Sequence[Trial]) -> Examination:
    """Return what it came to where nothing helped, and say so if the data may be why."""
    scores = (course.held.reference or -math.inf, *(trial.score for trial in trials))
    if not any(map(course.held.beyond_luck, scores)):
        course.runner.notes.append(
            "Nothing that was trained did better than a constant answer: look at the data first, whether these "
            "inputs can tell the targets."
        )
    return course.ended(Verdict.NOT_CURED, trials)


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
