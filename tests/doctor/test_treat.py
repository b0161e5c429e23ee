"""What a treatment comes to, on sick networks, healthy ones, and data that nothing can learn."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.doctor import Budget, prescribe, treat, verify
from steadygrad.doctor.search import search
from steadygrad.errors import SetupError, UsageError
from steadygrad.records import Outcome, Run, Severity, Step, Trial, Verdict
from steadygrad.training import TrainingSetup

from .patients import badly_scaled, clusters, images, mlp, plane, setup_of, sick_setup


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def yes_or_no() -> TrainingSetup:
    x, y = clusters(classes=2)
    return setup_of(mlp(1), (x, y[:, None].float()), F.binary_cross_entropy_with_logits)


HEALTHY = {
    "classifier": setup_of,
    "regressor": lambda: setup_of(mlp(1), plane(), F.mse_loss),
    "convolutions": lambda: setup_of(cnn(), images()),
    "binary logits": yes_or_no,
    "float64": lambda: setup_of(mlp().double(), (clusters()[0].double(), clusters()[1])),
    "adam": lambda: setup_of(optimizer=partial(torch.optim.Adam, lr=0.01)),
}


@pytest.mark.parametrize(("name", "reference"), [("classifier", 0), ("regressor", 20)])
def test_the_cost_is_that_of_forecast_trials_and_shallow_network(name: str, reference: int) -> None:
    treatment = treat(HEALTHY[name]())
    assert treatment.diagnosis.forecast is not None
    assert treatment.cost == treatment.diagnosis.forecast.steps + treatment.trials[0].cost + reference
    assert treatment.to_dict()["cost"] == treatment.cost


@pytest.mark.parametrize("make", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_setup_is_left_alone(make) -> None:  # type: ignore[no-untyped-def]
    setup = make()
    treatment = treat(setup)
    assert treatment.verdict is Verdict.HEALTHY
    assert treatment.setup is setup
    assert (treatment.prescription, treatment.proof, treatment.weights) == (None, None, None)
    assert len(treatment.trials) == 1


SICK = {
    "badly scaled": (sick_setup, "initialization"),
    "double softmax": (
        lambda: setup_of(nn.Sequential(mlp(10), nn.Softmax(1)), clusters(classes=10), lr=0.05),
        "head",
    ),
    "unscaled targets": (lambda: setup_of(mlp(1), plane(5e3, 2e4), F.mse_loss), "standardize_targets"),
    "unscaled inputs": (
        lambda: setup_of(mlp(1), (plane()[0] * 1e3 + 5e3, plane()[1]), F.mse_loss),
        "standardize_inputs",
    ),
    "dead learning rate": (lambda: setup_of(lr=1e-8), "learning_rate"),
    "huge learning rate": (lambda: setup_of(lr=1e3), "learning_rate"),
}


@pytest.mark.parametrize(("make", "remedy"), SICK.values(), ids=SICK)
def test_a_sick_setup_is_cured_by_what_its_illness_needs(make, remedy: str) -> None:  # type: ignore[no-untyped-def]
    setup = make()
    treatment = treat(setup, Budget(trials=2))
    assert treatment.verdict is Verdict.CURED
    assert treatment.prescription is not None
    assert treatment.prescription.steps[0].remedy == remedy
    assert [trial.outcome for trial in treatment.trials].count(Outcome.CHOSEN) == 1
    assert treatment.proof is not None
    assert treatment.proof.prescription == treatment.prescription
    assert treatment.diagnosis_after is not None
    # The cure holds outside of the treatment: the prescription helps the set-up that was given.
    assert verify(treatment.prescription, setup, seeds=(11,)).verdict is not Verdict.NOT_CURED


def test_the_cured_setup_is_the_given_one_but_for_the_cure() -> None:
    setup = sick_setup(steps=80)
    treatment = treat(setup, Budget(trials=1, steps=60))
    assert treatment.setup.train is setup.train
    assert treatment.setup.validation is setup.validation
    assert treatment.setup.steps == 80
    assert treatment.proof is not None
    assert {run.steps for run in (*treatment.proof.before, *treatment.proof.after)} == {60}


def test_the_trained_model_scores_as_proven() -> None:
    setup = sick_setup()
    treatment = treat(setup, Budget(trials=1))
    x, y = setup.validation
    assert treatment.proof is not None
    score = (treatment.model.eval()(x).argmax(1) == y).double().mean().item()
    assert score == pytest.approx(treatment.proof.after[0].score)


def test_findings_alone_are_no_reason_to_treat_what_learns() -> None:
    setup = setup_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(1)), lr=3.0)
    treatment = treat(setup)
    assert treatment.verdict is Verdict.HEALTHY
    assert any(note.startswith("There are findings, but it learns") for note in treatment.notes)
    first_sight = diagnose(setup).findings
    assert [finding.code for finding in first_sight] == [finding.code for finding in treatment.diagnosis.findings]
    assert first_sight[0].severity is Severity.ERROR, "one batch cannot know"
    assert treatment.diagnosis.healthy
    assert treatment.diagnosis.findings[0].message.endswith(" (does no harm here: the training gets over it)")


def test_findings_stay_alarms_where_the_training_does_not_get_over_them() -> None:
    setup = setup_of(nn.Sequential(mlp(10), nn.Softmax(1)), clusters(classes=10), lr=0.05)
    treatment = treat(setup, Budget(trials=2))
    assert treatment.verdict is Verdict.CURED
    assert treatment.diagnosis.findings == diagnose(setup, forecast=True).findings
    assert not treatment.diagnosis.healthy


def test_what_a_setup_forgets_before_its_end_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def early_bird(*args: Any, **settings: Any) -> tuple[Trial, list[Trial]]:
        short, trials = search(*args, **settings)
        return replace(short, runs=(Run(0, 10, 1.0),)), trials  # as it came it knew all after ten steps

    monkeypatch.setattr(import_module("steadygrad.doctor.treat"), "search", early_bird)
    decaying = setup_of(optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.8), steps=200)
    treatment = treat(decaying)
    assert treatment.trials[0].runs[0].steps > 10, "it was trained as it came"
    assert treatment.verdict is Verdict.CURED


@pytest.mark.parametrize(("steps", "longest"), [(None, True), (40, False)], ids=["free", "bound to its steps"])
def test_what_a_shallow_network_learns_and_nothing_else_trains_for_longest(
    monkeypatch: pytest.MonkeyPatch, steps: int | None, longest: bool
) -> None:
    def in_vain(*args: Any, **settings: Any) -> tuple[Trial, list[Trial]]:
        short, trials = search(*args, **settings)
        return short, [replace(trial, runs=(Run(0, 10, 0.0),)) for trial in trials]

    monkeypatch.setattr(import_module("steadygrad.doctor.treat"), "search", in_vain)
    treatment = treat(sick_setup(), Budget(steps=steps))
    longer = Step("longer_training", {"times": 4})
    assert any(longer in trial.prescription.steps for trial in treatment.trials) is longest
    assert treatment.verdict is (Verdict.CURED if longest else Verdict.NOT_CURED)
    assert treatment.setup.steps == (160 if longest else 40)


def test_labels_at_random_are_the_datas_fault() -> None:
    x, _ = clusters()
    y = torch.randint(0, 3, (400,), generator=torch.Generator().manual_seed(5))
    setup = setup_of(data=(x, y))
    treatment = treat(setup)
    assert treatment.verdict is Verdict.NOT_CURED
    assert treatment.setup is setup
    assert treatment.prescription is None
    assert len(treatment.trials) > 1, "the evidence"
    assert treatment.notes[-1].startswith("Nothing that was trained did better than a constant answer")


def test_what_no_remedy_helps_is_not_cured() -> None:
    class Deaf(nn.Module):
        """Answers by chance: its weights have no say."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * self.layer(x)

    setup = setup_of(Deaf(), steps=10)
    treatment = treat(setup)
    assert treatment.verdict is Verdict.NOT_CURED
    assert treatment.setup is setup
    assert (treatment.prescription, treatment.proof, treatment.diagnosis_after, treatment.weights) == (None,) * 4
    assert any("a sound shallow network 0." in note for note in treatment.notes), "the evidence that it can be learned"


@pytest.mark.parametrize("row", [0, 250], ids=["a first row", "a later row"])
def test_data_with_nan_cannot_be_helped(row: int) -> None:
    x, y = clusters()
    x[row, 3] = math.nan
    treatment = treat(setup_of(data=(x, y), steps=10))
    assert treatment.verdict is Verdict.NOT_CURED
    assert any(note.startswith("The training data hold NaN or infinity") for note in treatment.notes)
    assert len(treatment.trials) == 1, "nothing is tried in vain"


def test_validation_data_with_nan_cannot_prove_a_cure() -> None:
    setup = sick_setup()
    x, y = setup.validation
    x = x.clone()
    x[5, 0] = math.nan
    treatment = treat(setup.replace(validation=(x, y)), Budget(trials=1))
    assert treatment.verdict is Verdict.NOT_CURED
    assert treatment.proof is not None
    assert any(note.startswith("The validation data hold NaN or infinity") for note in treatment.notes)


def test_a_setup_without_an_optimizer_is_told() -> None:
    with pytest.raises(UsageError, match=r"^treat: expected a set-up with an optimizer, got None. Pass optimizer="):
        treat(setup_of(optimizer=None))


def test_a_setup_that_fails_as_it_came_is_told() -> None:
    with pytest.raises(SetupError, match=r"^model: forward failed on \(float32\[32, 8\], int64\[32\]\)"):
        treat(setup_of(nn.Linear(9, 3)))


def test_a_pretrained_network_keeps_its_weights() -> None:
    model = badly_scaled(depth=3, factor=0.5)
    treatment = treat(setup_of(model, redraw=None, lr=1e-7))
    assert treatment.verdict is Verdict.CURED
    assert treatment.prescription is not None
    assert "initialization" not in {step.remedy for step in treatment.prescription.steps}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), treatment.setup.model.parameters(), strict=True))


@pytest.mark.parametrize("setting", [{"trials": 0}, {"trials": 1.5}, {"steps": 0}, {"steps": -3}])
def test_budgets_are_whole_and_above_zero(setting: dict) -> None:
    with pytest.raises(UsageError, match=r"^Budget: expected (trials|steps) to be a whole number of at least 1, got"):
        Budget(**setting)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_seconds_are_above_zero(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"^Budget: expected seconds above 0 and finite, got"):
        Budget(seconds=seconds)


def test_a_budget_limits_trials_and_steps() -> None:
    treatment = treat(sick_setup(), Budget(trials=2, steps=30))
    assert len(treatment.trials) == 3, "the set-up as it came, and two trials"
    assert max(run.steps for trial in treatment.trials for run in trial.runs) == 30
    assert treatment.proof is not None
    assert {run.steps for run in (*treatment.proof.before, *treatment.proof.after)} == {30}


def test_seconds_cut_short_and_say_so() -> None:
    treatment = treat(sick_setup(), Budget(seconds=1e-6))
    assert len(treatment.trials) == 2
    assert any(note.startswith("The time was over while trying prescriptions: 1 of ") for note in treatment.notes)
    assert treatment.proof is not None, "what was found is proven"


def test_progress_covers_every_stage_to_its_end() -> None:
    told: list[tuple[str, int, int]] = []
    treat(sick_setup(steps=10), Budget(trials=2), progress=lambda *news: told.append(news))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [
        "training it as it is",
        "trying prescriptions",
        "training the best for longer",
        "proving it on fresh seeds",
    ]
    for stage in stages:
        done = [done for name, done, _ in told if name == stage]
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == {total for name, _, total in told if name == stage}.pop()


def test_width_depth_and_data_stay_unless_allowed() -> None:
    diagnosis = diagnose(setup_of(mlp(depth=9)))
    kept = {step.remedy for each in prescribe(diagnosis) for step in each.steps}
    assert not {"width", "depth", "complete_rows"} & kept
    freed = {step.remedy for each in prescribe(diagnosis, allow=("width", "depth", "data")) for step in each.steps}
    assert freed - kept == {"width", "depth", "complete_rows"}
    learned = {step.remedy for each in prescribe(diagnosis, keep_weights=True, allow=("width",)) for step in each.steps}
    assert "width" not in learned, "what was learned would be lost"


def test_incomplete_rows_are_left_out_where_data_may_change() -> None:
    x, y = clusters()
    x[[0, 250], 3] = math.nan
    treatment = treat(setup_of(data=(x, y)), Budget(trials=2), allow=("data",))
    assert treatment.verdict is not Verdict.NOT_CURED
    assert treatment.prescription is not None
    assert treatment.prescription.steps[0].remedy == "complete_rows"
    assert bool(treatment.setup.train[0].isfinite().all())


@pytest.mark.parametrize("allow", ["data", ("colour",)])
def test_only_known_things_can_be_allowed(allow) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"^allow: expected a collection of 'data', 'depth', 'width', got"):
        treat(setup_of(), allow=allow)
