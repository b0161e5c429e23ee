from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.prescribe import prescribe
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.search import _finalists, _smaller, _Stages, _to_the_end, choose, search, train_longest
from steadygrad.doctor.trials import Answer, Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.errors import SetupError
from steadygrad.records import Diagnosis, Outcome, Prescription, Run, Step, Symptom, Trial
from steadygrad.training import Serial, TrainingSetup

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


def longest(scores: list[float], reference: float | None) -> list[Trial]:
    bold = Prescription((Step("initialization", {"method": "auto"}), Step("optimizer", {"name": "adamw", "lr": 0.01})))
    changes = (Prescription(), bold)
    tried = [replace(trial(score), prescription=each) for score, each in zip(scores, changes, strict=True)]
    return train_longest(sick_setup(), tried, replace(HELD, reference=reference), 0, Runner(Serial()))


def test_the_boldest_trains_for_longest_until_it_comes_as_far_as_a_cure_must() -> None:
    (whole,) = longest([0.3, 0.35], reference=1.1)  # out of reach
    assert [step.remedy for step in whole.prescription.steps] == ["initialization", "optimizer", "longer_training"]
    assert whole.runs[0].steps == whole.cost == 160
    (enough,) = longest([0.3, 0.35], reference=0.95)
    assert enough.cost < 160


@pytest.mark.parametrize(("scores", "reference"), [([0.3, 0.75], 1.1), ([0.75, 0.3], 1.1), ([0.3, 0.35], None)])
def test_nothing_trains_for_longest_without_need_or_hope(scores: list[float], reference: float | None) -> None:
    assert longest(scores, reference) == []


def searched(
    practice: TrainingSetup, diagnosis: Diagnosis, trials: int = 12, runner: Runner | None = None
) -> list[Trial]:
    found = search(practice, diagnosis, HELD, Budget(trials=trials), 0, runner or Runner(Serial()))
    return [found[0], *found[1]]


def test_all_are_tried_and_the_best_go_on() -> None:
    practice = sick_setup(steps=200)
    given, *trials = searched(practice, diagnose(practice))
    assert given.prescription == Prescription()
    assert given.reason == "as it came"
    gone_on = [trial for trial in trials if trial.outcome is Outcome.TRIED]
    assert len(gone_on) in (2, 3), "the best two, and the best with larger steps if it sets their size"
    assert all(trial.runs[-1].steps == 40 for trial in gone_on), "a fifth of the plan"
    rest = [trial for trial in trials if trial not in gone_on]
    assert {trial.outcome for trial in rest} == {Outcome.STOPPED}
    assert {run.steps for trial in rest for run in trial.runs} == {10}, "a twentieth"
    assert all(trial.cost == sum(run.steps for run in trial.runs) for trial in trials)
    assert max(trial.score for trial in rest) <= max(trial.runs[0].score for trial in gone_on)


def test_the_whole_search_costs_less_than_two_trainings() -> None:
    practice = sick_setup(steps=400)
    assert sum(trial.cost for trial in searched(practice, diagnose(practice))) <= 1.5 * 400


@pytest.mark.parametrize(
    ("chance", "luck", "length"), [(0.3, 2.0, 60), (-20.0, 0.0, 120)], ids=["all may be luck", "little was learned"]
)
def test_what_learns_next_to_nothing_in_a_short_time_trains_on(chance: float, luck: float, length: int) -> None:
    practice = sick_setup(steps=120).replace(metric=lambda output, target: -18.5)
    hard = Yardstick("accuracy", chance, luck)
    _, trials = search(practice, diagnose(practice), hard, Budget(), 0, Runner(Serial()))
    ended = [trial for trial in trials if trial.outcome is Outcome.TRIED]
    assert {trial.runs[-1].steps for trial in ended[: len(ended) - (chance < 0)]} == {length}, "half of it may do"
    assert all(trial.prescription.steps for trial in ended), "the set-up as it came has shown what it can"
    if chance < 0:  # what is beyond luck and far from perfect also trains for longer
        assert ended[-1].runs[-1].steps == 240
        assert ended[-1].prescription.steps[-1] == Step("longer_training", {"times": 2})


@pytest.mark.parametrize(
    ("scores", "trained"),
    [
        ({"optimizer": 0.9, "initialization": 0.9}, ["optimizer"]),
        ({"optimizer": 0.5, "initialization": 0.9}, ["optimizer", "optimizer for longer"]),
        ({"optimizer": 0.3, "initialization": 0.9}, ["optimizer", "initialization"]),
        ({"optimizer": 0.3, "initialization": 0.3}, ["optimizer", "initialization"]),
    ],
    ids=["learns well", "learns a little", "does not learn", "none learns"],
)
def test_the_boldest_trains_to_its_end_and_the_next_if_that_does_not_learn(
    scores: dict[str, float], trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def train(stage: str, prescriptions: list[Prescription], *_: float) -> list[Answer]:
        (remedy, *longer) = [step.remedy for step in prescriptions[0].steps]
        seen.append(remedy + " for longer" * len(longer))
        return [answer(scores[remedy], remedy)]

    stages = _Stages(sick_setup(), 0, Runner(Serial()))
    monkeypatch.setattr(stages, "train", train)
    changes = [answer(0.0, remedy).prescription for remedy in ("initialization", "optimizer")]
    _to_the_end(stages, changes, HELD, longer=True)
    assert seen == trained


def test_when_the_time_is_over_no_further_one_trains_and_none_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = _Stages(sick_setup(), 0, Runner(Serial(), deadline=time.monotonic() - 1))
    changes = [answer(0.0, remedy).prescription for remedy in ("initialization", "optimizer")]
    for score in (0.3, 0.5):  # does not learn, learns a little
        monkeypatch.setattr(stages, "train", lambda *_, score=score: [answer(score, "optimizer")])
        assert len(_to_the_end(stages, changes, HELD, longer=True)) == 1


def answer(score: float, *remedies: str, losses: tuple[float, ...] = ()) -> Answer:
    prescription = Prescription(tuple(Step(remedy) for remedy in remedies))
    return Answer(prescription, Run(0, 10, score, losses or (score,)))


def test_the_best_and_the_smallest_that_is_close_to_it_go_on() -> None:
    given, small, middle, best = answer(0.3), answer(0.8, "a"), answer(0.84, "a", "b"), answer(0.85, "a", "b", "c")
    assert _finalists([given, small, middle, best], HELD, 1) == [small.prescription, best.prescription]
    slow = answer(0.5, "a")
    assert _finalists([given, slow, middle, best], HELD, 1) == [middle.prescription, best.prescription]
    assert _finalists([given, slow, best], HELD, 1) == [slow.prescription, best.prescription], "two go on in any case"


def test_of_what_trains_alike_step_by_step_only_the_smaller_one_goes_on() -> None:
    small, twin = answer(0.85, "a", losses=(1.0, 0.5)), answer(0.85, "a", "idle", losses=(1.0, 0.5))
    assert _finalists([answer(0.3), small, twin], HELD, 1) == [small.prescription]


def test_a_smaller_change_may_take_all_steps_to_come_as_far_as_surgery() -> None:
    small, surgery = answer(0.9, "optimizer"), answer(0.97, "residual", "optimizer")
    found = _smaller([small, surgery], HELD)
    assert found is not None
    assert found[0] == small.prescription
    assert found[1] == pytest.approx(0.97 - 0.05 * 0.67)
    assert _smaller([small, answer(0.97, "optimizer", "schedule")], HELD) is None, "no surgery is spared"
    assert _smaller([small, answer(0.8, "residual", "optimizer")], HELD) is None, "too little to know the goal is met"
    assert _smaller([answer(0.5, "optimizer"), surgery], HELD) is None, "far behind"
    assert _smaller([answer(0.96, "optimizer"), surgery], HELD) is None, "as good already"
    assert _smaller([surgery], HELD) is None


def test_a_training_ends_as_soon_as_it_has_its_answer() -> None:
    patients = Patients(setup_of(steps=80))

    def steps(**limits: float) -> int:
        return run_train_task(patients, TrainTask(Prescription(), 0, **limits)).cost

    assert steps() == 80
    assert steps(enough=0.0) == 20, "a quarter"
    assert steps(hopeless=1.0) == 40, "half"
    assert steps(enough=2.0, hopeless=0.0) == 80


def test_looking_on_the_way_does_not_change_a_training() -> None:
    patients = Patients(setup_of(nn.Sequential(mlp(), nn.Dropout(0.2)), steps=41))
    plain, watched = (
        run_train_task(patients, TrainTask(Prescription(), 0, enough=enough)) for enough in (math.inf, 2.0)
    )
    assert plain.run == watched.run


def test_a_budget_of_trials_takes_the_smallest_changes() -> None:
    practice = sick_setup(steps=40)
    found = diagnose(practice)
    wanted = [str(each) for each in prescribe(found)[:2]]
    tried = [str(trial.prescription) for trial in searched(practice, found, 2)[1:]]
    assert tried[:2] == wanted
    assert len(tried) <= 3


def test_the_learning_rate_answers_the_findings_about_it() -> None:
    practice = setup_of(lr=1e-8, steps=40)
    diagnosis = diagnose(practice)
    assert {finding.code for finding in diagnosis.findings} == {"SG502"}
    first = searched(practice, diagnosis, 1)[1]
    assert first.prescription.steps[0].remedy == "learning_rate"
    assert first.prescription.steps[0].answers == ("SG502",)


class Functional(nn.Module):
    """Activations spelled out in arithmetic: nothing that could be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(badly_scaled()[::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x)
            x = x * (x > 0)
        return self.layers[-1](x)


def test_steps_that_do_not_fit_are_left_out_and_told_once() -> None:
    practice = setup_of(Functional(), steps=40)
    runner = Runner(Serial())
    trials = searched(practice, diagnosis_of(("SG101", Symptom.VANISHING)), runner=runner)[1:]
    remedies = [[step.remedy for step in trial.prescription.steps] for trial in trials]
    assert all("activation" not in steps and "initialization" in steps for steps in remedies)
    assert len({str(trial.prescription) for trial in trials}) == len(remedies)
    assert all(note.startswith("Not tried: ") for note in runner.notes)
    assert sum(note.startswith("Not tried: activation: expected") for note in runner.notes) == 1
    assert len(set(runner.notes)) == len(runner.notes)


def test_frozen_weights_are_thawed_before_they_are_drawn_afresh() -> None:
    model = badly_scaled()
    for parameter in list(model.parameters())[:-1]:
        parameter.requires_grad_(False)
    trials = searched(setup_of(model, steps=40), diagnose(setup_of(model)))[1:]
    assert any({"unfreeze", "initialization"} <= {step.remedy for step in t.prescription.steps} for t in trials)


def test_a_remedy_that_makes_the_model_fail_is_a_trial_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from steadygrad.doctor import trials as module

    real = module.apply

    def sabotaged(prescription, setup, seed):  # type: ignore[no-untyped-def]
        treated = real(prescription, setup, seed)
        if any(step.remedy == "initialization" for step in prescription.steps):
            treated.model.register_forward_pre_hook(lambda *_: 1 / 0)
        return treated

    monkeypatch.setattr(module, "apply", sabotaged)
    practice = sick_setup(steps=40)
    trials = searched(practice, diagnose(practice), 2)[1:]
    failed = [trial for trial in trials if trial.outcome is Outcome.NOT_APPLICABLE]
    assert failed
    assert all(trial.prescription.steps[0].remedy == "initialization" for trial in failed)
    assert all("ZeroDivisionError" in trial.reason for trial in failed)


def test_time_over_still_tries_one_and_says_so() -> None:
    practice = sick_setup(steps=40)
    runner = Runner(Serial(), deadline=time.monotonic() - 1)
    given, *trials = searched(practice, diagnose(practice), runner=runner)
    assert given.runs
    assert len(trials) == 1
    assert runner.notes[0].startswith("The time was over while trying prescriptions: 1 of ")


def test_the_setup_as_it_came_may_not_fail_but_a_treated_one_may() -> None:
    broken = setup_of(nn.Linear(9, 3))
    with pytest.raises(SetupError, match=r"^model: forward failed"):
        run_train_task(Patients(broken), TrainTask(Prescription(), 0))
    answer = run_train_task(Patients(broken), TrainTask(Prescription((Step("learning_rate", {"lr": 1.0}),)), 0))
    assert answer.problem.startswith("model: forward failed")
    assert answer.run is None


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
