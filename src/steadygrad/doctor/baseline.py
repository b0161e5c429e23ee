"""How a set-up does as it came, and whether that is well enough to leave it alone."""

from __future__ import annotations

import math
from statistics import fmean

from steadygrad.doctor.reference import reference_setup
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import GOAL_SHARE, Yardstick, yardstick
from steadygrad.records import Diagnosis, Prescription, Prospect, Run, Trial
from steadygrad.training import TrainingSetup

__all__ = ["HEALTHY_SHARE", "is_far", "is_good", "is_to_be_left_alone", "train_as_it_came", "with_reference"]

# A set-up with findings is left alone if it learns as well as a cure must (GOAL_SHARE); from this share on one without
# findings, for it may be small or slow on purpose, and one that nothing beats. What surely will train, and has come
# half of the way to a perfect answer, needs no shallow network beside it.
HEALTHY_SHARE = 0.85
HALFWAY = 0.5


def train_as_it_came(
    practice: TrainingSetup, diagnosis: Diagnosis, held: Yardstick, seed: int, runner: Runner
) -> Trial:
    """Train the set-up as it came, until it is good enough, or has shown nothing after half of its steps."""
    enough = held.towards_perfect(_enough(diagnosis))
    task = TrainTask(Prescription(), seed, enough=math.inf if enough is None else enough, hopeless=held.luckiest)
    (given,) = runner.run("training it as it is", run_train_task, Patients(practice), [task], practice.steps)
    return Trial(given.prescription, (given.run,) if given.run else (), reason="as it came", cost=given.cost)


def with_reference(
    practice: TrainingSetup, held: Yardstick, hopeless: float, seed: int, runner: Runner
) -> tuple[Yardstick, int]:
    """Train the shallow network where one fits; return the yardstick with it and the steps spent.

    It ends after half of its steps if it has not come beyond ``hopeless`` by then.
    """
    shallow, sound = reference_setup(practice) or (None, None)
    tasks = [TrainTask(sound, seed, reference=True, hopeless=hopeless)] if sound else []
    patients = Patients(practice, shallow)
    others = runner.run("training a shallow network", run_train_task, patients, tasks, practice.steps) if tasks else []
    runs = [answer.run for answer in others if answer.run is not None]
    if held.chance is not None:
        sentence = f"On the data that chose between trials, a constant answer scores {held.chance:.3f} {held.metric}"
        beside = f", a sound shallow network {runs[0].score:.3f} in {runs[0].steps} steps." if runs else "."
        runner.notes.append(sentence + beside)
    held = yardstick(practice, practice.validation, [run.score for run in runs])
    return held, sum(answer.cost for answer in others)


def _enough(diagnosis: Diagnosis) -> float:
    """Return the share of the way to a perfect answer from which on a set-up needs no comparison."""
    assert diagnosis.forecast is not None
    if not diagnosis.healthy:
        return GOAL_SHARE
    return HALFWAY if diagnosis.forecast.prospect is Prospect.TRAINS else HEALTHY_SHARE


def is_good(baseline: Trial, diagnosis: Diagnosis, held: Yardstick, notes: list[str]) -> bool:
    """Whether a set-up comes so near to a perfect answer that nothing needs to be compared."""
    enough = held.towards_perfect(_enough(diagnosis))
    if enough is None or baseline.score < enough:
        return False
    assert held.chance is not None
    share = (baseline.score - held.chance) / (1 - held.chance)
    begin = "As it came" if diagnosis.healthy else "There are findings, but it learns: as it came"
    steps = f"{baseline.runs[0].steps} steps"
    notes.append(f"{begin} it went {share:.0%} of the way from chance to a perfect answer in {steps}: left alone.")
    return True


def is_far(baseline: Trial, held: Yardstick) -> bool:
    """Whether a set-up has not come half of the way to a perfect answer: then remedies are tried at once."""
    halfway = held.towards_perfect(HALFWAY)
    return halfway is not None and baseline.score < halfway


def is_to_be_left_alone(
    diagnosis: Diagnosis, run: Run, held: Yardstick, notes: list[str], unbeaten: bool = False
) -> bool:
    """Whether a set-up learns well enough as it is; ``unbeaten`` if nothing that was tried does better."""
    enough = held.at(HEALTHY_SHARE if diagnosis.healthy or unbeaten else GOAL_SHARE)
    if enough is None:
        learns = held.beyond_luck(run.score) and (held.chance is not None or _falls(run.losses))
        if diagnosis.healthy and learns:
            notes.append("It was judged by its findings and its loss: there is no shallow network to compare with.")
        return diagnosis.healthy and learns
    if run.score >= enough and not diagnosis.healthy:
        better = ", and nothing that was tried does better" if unbeaten else ""
        notes.append(f"There are findings, but it learns as well as a sound shallow network{better}: it is left alone.")
    return run.score >= enough


def _falls(losses: tuple[float, ...]) -> bool:
    """Whether the last tenth of the losses lies below the first."""
    tenth = max(1, len(losses) // 10)
    return fmean(losses[-tenth:]) < fmean(losses[:tenth])
