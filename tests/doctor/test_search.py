from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.search import choose, search
from steadygrad.doctor.trials import Answer, Patients, RateTask, TrainTask, run_rate_task, run_train_task
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.errors import SetupError
from steadygrad.records import Outcome, Prescription, Run, Step, Symptom, Trial
from steadygrad.training import Serial

from .patients import badly_scaled, diagnosis_of, mlp, setup_of, sick_setup

HELD = Yardstick("accuracy", 0.3, 0.1, 0.95)


def trial(score: float, name: str = "") -> Trial:
    return Trial(Prescription(rationale=name), (Run(0, 10, score),))


def chosen(scores: list[float], baseline: float = 0.3, held: Yardstick = HELD) -> int | None:
    trials = [trial(score, str(position)) for position, score in enumerate(scores)]
    found = choose(trials, trial(baseline), held)
    return None if found is None else trials.index(found)


def test_the_smallest_change_that_reaches_the_goal_is_chosen() -> None:
    assert chosen([0.5, 0.94, 0.99]) == 1


def test_short_of_the_goal_the_best_is_chosen_and_ties_go_to_the_smaller() -> None:
    assert chosen([0.5, 0.8, 0.6]) == 1
    assert chosen([0.799, 0.8, 0.6]) == 0


def test_nothing_is_chosen_that_does_not_beat_the_baseline() -> None:
    assert chosen([0.5, 0.6], baseline=0.6) is None
    assert chosen([-math.inf, -math.inf], baseline=-math.inf) is None
    assert chosen([], baseline=0.3) is None


def test_nothing_is_chosen_that_may_be_luck() -> None:
    assert chosen([0.39], baseline=-math.inf) is None
    assert chosen([0.41], baseline=-math.inf) == 0


def test_without_a_known_chance_the_best_is_chosen() -> None:
    assert chosen([-2.0, -1.0, -1.5], baseline=-3.0, held=Yardstick("negative loss")) == 1
    assert chosen([-2.0, -1.0], baseline=-math.inf, held=Yardstick("negative loss")) == 1


def test_trials_tell_what_was_done_at_what_cost() -> None:
    practice = sick_setup(steps=20)
    trials = search(practice, diagnose(practice), 12, 0, Runner(Serial()))
    assert sum(trial.outcome is Outcome.TRIED for trial in trials) in (3, 4), "the better half, and the smallest change"
    for trial in trials:
        rates = trial.cost - sum(run.steps for run in trial.runs)
        assert trial.outcome in (Outcome.TRIED, Outcome.STOPPED)
        assert 3 * 20 <= rates <= 7 * 20, "three to seven learning rates in 20 steps each"
        assert bool(trial.runs) == (trial.outcome is Outcome.TRIED)
        last = trial.prescription.steps[-1]
        assert last.remedy in ("learning_rate", "optimizer")
        assert last.settings["lr"] > 0
    assert trials[0].outcome is Outcome.TRIED, "the smallest change is always trained to the end"


def test_a_budget_of_trials_takes_the_smallest_changes() -> None:
    practice = sick_setup(steps=5)
    assert len(search(practice, diagnose(practice), 2, 0, Runner(Serial()))) == 2


def test_the_learning_rate_answers_the_findings_about_it() -> None:
    practice = setup_of(lr=1e-8, steps=5)
    diagnosis = diagnose(practice)
    assert {finding.code for finding in diagnosis.findings} == {"SG502"}
    first = search(practice, diagnosis, 1, 0, Runner(Serial()))[0]
    assert first.prescription.steps[0].answers == ("SG502",)


class Functional(nn.Module):
    """Activations as functions: they cannot be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(badly_scaled()[::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def test_steps_that_do_not_fit_are_left_out_and_told_once() -> None:
    practice = setup_of(Functional(), steps=5)
    runner = Runner(Serial())
    trials = search(practice, diagnosis_of(("SG101", Symptom.VANISHING)), 12, 0, runner)
    remedies = [[step.remedy for step in trial.prescription.steps] for trial in trials]
    assert all("activation" not in steps for steps in remedies)
    assert ["residual", "normalization", "initialization", "optimizer"] in remedies
    assert len({str(steps) for steps in remedies}) == len(remedies)
    assert runner.notes == [note for note in runner.notes if note.startswith("Not tried: activation: expected")]
    assert len(runner.notes) == 1


def test_a_remedy_that_makes_the_model_fail_is_a_trial_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from steadygrad.doctor import trials as module

    real = module.apply

    def sabotaged(prescription, setup, seed):  # type: ignore[no-untyped-def]
        treated = real(prescription, setup, seed)
        if any(step.remedy == "optimizer" for step in prescription.steps):
            treated.model.register_forward_pre_hook(lambda *_: 1 / 0)
        return treated

    monkeypatch.setattr(module, "apply", sabotaged)
    practice = sick_setup(steps=5)
    trials = search(practice, diagnose(practice), 2, 0, Runner(Serial()))
    assert [trial.outcome for trial in trials] == [Outcome.TRIED, Outcome.NOT_APPLICABLE]
    assert "ZeroDivisionError" in trials[1].reason


def test_time_over_still_tries_one_and_says_so() -> None:
    practice = sick_setup(steps=5)
    runner = Runner(Serial(), deadline=time.monotonic() - 1)
    trials = search(practice, diagnose(practice), 12, 0, runner)
    assert [trial.outcome for trial in trials] == [Outcome.TRIED]
    assert runner.notes == ["The time was over while finding learning rates: 1 of 6 done."]


def test_the_setup_as_it_came_may_not_fail_but_a_treated_one_may() -> None:
    broken = setup_of(nn.Linear(9, 3))
    with pytest.raises(SetupError, match=r"^model: forward failed"):
        run_train_task(Patients(broken), TrainTask(Prescription(), 0))
    answer = run_train_task(Patients(broken), TrainTask(Prescription((Step("learning_rate", {"lr": 1.0}),)), 0))
    assert answer.problem.startswith("model: forward failed")
    assert answer.run is None
    assert run_rate_task(Patients(broken), RateTask(Prescription(), 5, 0)).problem.startswith("model: forward failed")


def test_losses_are_thinned_with_both_ends_kept() -> None:
    answer = run_train_task(Patients(setup_of(mlp(depth=2), steps=450)), TrainTask(Prescription(), 0))
    assert answer.run is not None
    assert answer.run.steps == answer.cost == 450
    assert len(answer.run.losses) == 200
    whole = run_train_task(Patients(setup_of(mlp(depth=2), steps=30)), TrainTask(Prescription(), 0))
    assert whole.run is not None
    assert answer.run.losses[0] == whole.run.losses[0]
    assert len(whole.run.losses) == 30


def test_a_training_that_diverges_has_no_score() -> None:
    answer = run_train_task(Patients(setup_of(lr=1e30, steps=20)), TrainTask(Prescription(), 0))
    assert isinstance(answer, Answer)
    assert answer.run is not None
    assert answer.run.diverged
    assert answer.run.score == -math.inf
    assert answer.cost == answer.run.steps < 20
