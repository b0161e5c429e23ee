"""What each part of a combination brings, and what remains unsure."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

from steadygrad.diagnosis import diagnose
from steadygrad.doctor import Budget, treat
from steadygrad.doctor.ablation import ablate
from steadygrad.doctor.doubts import doubts
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.records import Outcome, Part, Prescription, Proof, Run, Step, Trial, Verdict
from steadygrad.training import Serial

from .patients import setup_of, sick_setup

HELD = Yardstick("accuracy", 0.3, 0.1, 0.95)
DRAWN, IDLE = Step("initialization"), Step("clip_by_global_norm", {"max_norm": 1e6})
FAST = Step("learning_rate", {"lr": 0.2})


def tried(*steps: Step, length: int = 50) -> tuple[Trial, int]:
    """Return a trial of these steps, and the seed of it."""
    answer = run_train_task(Patients(sick_setup(steps=200)), TrainTask(Prescription(steps), 3, steps=length))
    assert answer.run is not None
    return Trial(answer.prescription, (answer.run,), cost=answer.cost), 3


def taken_apart(*steps: Step, room: int = 20, held: Yardstick = HELD) -> tuple[Trial, tuple[Part, ...], list[Trial]]:
    chosen, seed = tried(*steps)
    return ablate(chosen, sick_setup(steps=200), held, room, seed, Runner(Serial()))


def test_what_brings_nothing_is_dropped_and_what_cures_stays() -> None:
    leaner, parts, trials = taken_apart(DRAWN, IDLE)
    assert leaner.prescription.steps == (DRAWN,)
    assert [(part.step, part.dropped) for part in parts] == [(DRAWN, False), (IDLE, True)]
    needed, idle = parts
    assert needed.without < needed.whole
    assert idle.without == idle.whole, "a threshold that is never reached changes nothing"
    assert leaner is trials[-1], "what is left was trained as long as before"
    assert leaner.runs[0].steps == 50
    assert all(trial.cost == trial.runs[0].steps for trial in trials)


def test_what_answers_a_finding_stays() -> None:
    chosen, parts, _ = taken_apart(DRAWN, replace(IDLE, answers=("SG201",)))
    assert len(chosen.prescription.steps) == 2
    assert not any(part.dropped for part in parts)


def test_a_combination_that_has_trained_as_short_before_is_not_trained_again() -> None:
    (long, seed), (short, _) = tried(DRAWN, FAST), tried(DRAWN, FAST, length=10)
    again = ablate(long, sick_setup(steps=200), HELD, 20, seed, Runner(Serial()))
    both = replace(long, runs=(*short.runs, *long.runs))
    chosen, parts, trials = ablate(both, sick_setup(steps=200), HELD, 20, seed, Runner(Serial()))
    assert parts == again[1]
    assert trials == again[2][1:]
    assert chosen.score == again[0].score


def test_parts_that_are_missed_stay() -> None:
    chosen, parts, trials = taken_apart(DRAWN, FAST)
    (needed,) = (part for part in parts if part.step == DRAWN)
    assert needed.without < needed.whole
    assert DRAWN in chosen.prescription.steps
    assert {part.steps for part in parts} == {10}, "a twentieth"
    assert len(trials) in (3, 4)


@pytest.mark.parametrize(("steps", "room"), [((DRAWN,), 20), ((DRAWN, IDLE), 3)], ids=["one part", "no room"])
def test_nothing_is_taken_apart_without_parts_or_room(steps: tuple[Step, ...], room: int) -> None:
    chosen, parts, trials = taken_apart(*steps, room=room)
    assert chosen.prescription.steps == steps
    assert (parts, trials) == ((), [])


def test_nothing_is_taken_apart_when_the_time_is_over() -> None:
    chosen, seed = tried(DRAWN, IDLE)
    runner = Runner(Serial(), deadline=time.monotonic() - 1)
    assert ablate(chosen, sick_setup(steps=200), HELD, 20, seed, runner) == (chosen, (), [])


def test_a_training_too_short_to_tell_tells_nothing() -> None:
    chosen, parts, trials = taken_apart(DRAWN, IDLE, held=Yardstick("accuracy", 0.3, 0.7))
    assert chosen.prescription.steps == (DRAWN, IDLE)
    assert parts == ()
    assert len(trials) == 1, "and what it cost is told"


def test_a_treatment_tells_what_mattered_and_counts_its_cost() -> None:
    treatment = treat(sick_setup(steps=120, lr=1e-3), Budget(trials=20))
    assert treatment.prescription is not None
    assert treatment.parts
    assert [part.step for part in treatment.parts if not part.dropped] == list(treatment.prescription.steps)
    assert [trial.outcome for trial in treatment.trials].count(Outcome.CHOSEN) == 1
    assert any(trial.reason.startswith("without ") for trial in treatment.trials)
    assert "parts" in treatment.to_dict()


def treatment_of(**fields: object) -> Treatment:
    setup = setup_of()
    return replace(Treatment(diagnose(setup), (), Verdict.CURED, setup), **fields)


def run(score: float) -> Run:
    return Run(0, 50, score)


def test_seeds_tell_how_sure_the_mean_is() -> None:
    after = run(0.90), run(0.92), run(0.94)
    proof = Proof(Prescription(), (run(0.3),) * 3, after, "accuracy", Verdict.CURED)
    found = doubts(treatment_of(proof=proof), HELD)
    lost = doubts(treatment_of(proof=replace(proof, after=(*after[:2], run(-math.inf)))), HELD)
    assert "1 of 3 treated trainings diverged." in lost
    half = 4.303 * 0.02 / math.sqrt(3)
    assert f"3 seeds put the mean accuracy of the treated set-up at 0.920 ± {half:.3f} (95 %, Student's t)." in found


def test_rivals_within_luck_and_those_that_fell_behind_are_told() -> None:
    steps = (DRAWN, IDLE)
    chosen = Trial(Prescription(steps), (run(0.9),), Outcome.CHOSEN)
    near, far = (Trial(Prescription(steps[:1]), (run(score),)) for score in (0.85, 0.6))
    behind = Trial(Prescription((FAST,)), (Run(0, 10, 0.5),), Outcome.STOPPED)
    found = doubts(treatment_of(trials=(chosen, near, far, behind)), HELD)
    assert any(sentence.startswith("1 other prescription came within 0.100 accuracy") for sentence in found)
    assert any(sentence.startswith("1 prescription fell behind") for sentence in found)
    assert any(sentence.startswith("Which part of the combination matters was not measured") for sentence in found)


def test_what_is_still_found_remains_unsure_and_a_sound_set_up_leaves_no_doubt() -> None:
    setup = sick_setup()
    found = doubts(treatment_of(diagnosis_after=diagnose(setup)), HELD)
    assert any(sentence.startswith("Still found in the cured set-up: SG") for sentence in found)
    assert doubts(treatment_of(diagnosis_after=diagnose(setup_of())), HELD) == ()
