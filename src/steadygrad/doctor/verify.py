"""Prove a prescription: the same trainings without and with it, on fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from torch import Tensor

from steadygrad.doctor.apply import apply
from steadygrad.doctor.reference import reference_setup
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.trials import Answer, Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import Yardstick, yardstick
from steadygrad.errors import UsageError
from steadygrad.records import Prescription, Proof, Run, Verdict
from steadygrad.training import Executor, Serial, TrainingSetup, seeded
from steadygrad.training.batches import generators_of

__all__ = ["Pairs", "train_pairs", "verify"]


def verify(
    prescription: Prescription,
    setup: TrainingSetup,
    seeds: Sequence[int] = (1, 2, 3),
    executor: Executor | None = None,
) -> Proof:
    """Train a set-up as it came and treated, on the same seeds, and compare the scores on its validation data.

    For each seed both trainings start from weights redrawn by that seed and see the data in the same order. *Improved*
    means: better on every seed, and on average better than luck allows. *Cured* means moreover: on average at least
    97 % of the way from chance to a sound shallow network that trains for as many steps. The set-up and all random
    states stay as they are.

    Args:
        prescription: What to prove.
        setup: The set-up as it came; needs an optimizer and validation data.
        seeds: One pair of trainings each.
        executor: Where trainings run; in this process by default.

    Raises:
        NotApplicableError: If a remedy does not fit this set-up.
        SetupError: If the set-up fails as it came.
        UsageError: If the set-up has no validation data, or there are no seeds.
    """
    if not seeds:
        raise UsageError("verify: expected at least one seed, got none. Pass for instance seeds=(1, 2, 3).")
    apply(prescription, setup, seeds[0])  # what does not fit is told before the work
    return train_pairs(prescription, setup, seeds, Runner(executor or Serial())).proof


@dataclass(frozen=True)
class Pairs:
    """A proof, the weights that its first treated training ended with, and why treated trainings failed."""

    proof: Proof
    weights: dict[str, Tensor] | None
    problems: tuple[str, ...]


def train_pairs(prescription: Prescription, setup: TrainingSetup, seeds: Sequence[int], runner: Runner) -> Pairs:
    """Train pairs, and the shallow network beside them where one fits.

    Raises:
        UsageError: If the set-up has no validation data.
    """
    if setup.validation is None:
        raise UsageError("verify: expected a set-up with validation data, got None. Pass validation=(x, y).")
    with seeded(seeds[0], *generators_of(setup.train), *generators_of(setup.validation)):
        reference = reference_setup(setup)
        shallow, sound = reference or (None, None)
        before = [TrainTask(Prescription(), seed) for seed in seeds]
        after = [TrainTask(prescription, seed, keep_weights=seed == seeds[0]) for seed in seeds]
        yard = [TrainTask(_as_long(sound, prescription), seed, reference=True) for seed in seeds] if sound else []
        tasks = [*before, *after, *yard]
        answers = runner.run("proving it on fresh seeds", run_train_task, Patients(setup, shallow), tasks, setup.steps)
        untreated, treated, references = _thirds(answers, len(seeds))
        held = yardstick(setup, setup.validation, [run.score for run in _runs(references)])
    proof = _judged(prescription, _runs(untreated), _runs(treated), held)
    problems = tuple(dict.fromkeys(answer.problem for answer in treated if answer.problem))
    return Pairs(proof, treated[0].weights, problems)


def _as_long(sound: Prescription, prescription: Prescription) -> Prescription:
    """Return ``sound``, prolonged if ``prescription`` prolongs the training."""
    longer = tuple(step for step in prescription.steps if step.remedy == "longer_training")
    return replace(sound, steps=(*sound.steps, *longer))


def _judged(prescription: Prescription, before: tuple[Run, ...], after: tuple[Run, ...], held: Yardstick) -> Proof:
    verdict = Verdict.NOT_CURED
    better = len(after) == len(before) and all(a.score > b.score for a, b in zip(after, before, strict=True))
    if better and held.beyond_luck(score := fmean(run.score for run in after)):
        verdict = Verdict.CURED if held.goal is not None and score >= held.goal else Verdict.IMPROVED
    return Proof(prescription, before, after, held.metric, verdict, held.chance, held.goal)


def _thirds(answers: list[Answer], count: int) -> tuple[list[Answer], list[Answer], list[Answer]]:
    return answers[:count], answers[count : 2 * count], answers[2 * count :]


def _runs(answers: Sequence[Answer]) -> tuple[Run, ...]:
    return tuple(answer.run for answer in answers if answer.run is not None)
