"""What a handful of real steps foretell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.diagnosis.forecast import REASONS, WEIGHTS, features
from steadygrad.errors import UsageError
from steadygrad.records import Prospect
from steadygrad.training import TrainingSetup

from .networks import labels, plain, scaled, setup


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    y = labels(256)
    g = torch.Generator().manual_seed(0)
    return 2 * torch.randn(4, 16, generator=g)[y] + torch.randn(256, 16, generator=g), y


def learner(model: nn.Module, lr: float = 0.1) -> TrainingSetup:
    x, y = clusters()
    return setup(model, x, y, optimizer=partial(torch.optim.SGD, lr=lr), steps=200)


def test_a_healthy_network_will_train() -> None:
    told = diagnose(learner(plain(3)), forecast=True).forecast
    assert told is not None
    assert told.prospect is Prospect.TRAINS
    assert told.probability < 0.1
    assert told.steps == 25, "20 in a row, and 5 held against their own batches"
    assert told.reasons


@pytest.mark.parametrize(
    "make",
    [lambda: learner(plain(12, nn.Sigmoid, 1.0)), lambda: learner(plain(4), 1e3), lambda: learner(plain(4), 1e-7)],
    ids=["vanishing", "rate too high", "rate too low"],
)
def test_a_sick_network_will_fail(make: Callable[[], TrainingSetup]) -> None:
    told = diagnose(make(), forecast=True).forecast
    assert told is not None
    assert told.prospect is Prospect.FAILS
    assert told.probability > 0.9


def test_without_being_asked_nothing_is_foretold() -> None:
    diagnosis = diagnose(learner(plain(3)))
    assert diagnosis.forecast is None
    assert diagnosis.observation.outlook is None


def test_a_forecast_leaves_the_set_up_and_random_states_as_they_were() -> None:
    given = learner(scaled(plain(3), "2", 0.5))
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    state = torch.get_rng_state()
    first = diagnose(given, forecast=True)
    assert all(torch.equal(before[name], value) for name, value in given.model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert diagnose(given, forecast=True) == first


def test_features_have_no_units_and_a_reason_each() -> None:
    diagnosis = diagnose(learner(plain(3)), forecast=True)
    found = features(diagnosis.blueprint, diagnosis.observation, diagnosis.findings)
    assert set(found) == set(WEIGHTS) == set(REASONS)
    assert all(-1 <= value <= 1 for value in found.values())


def test_a_short_plan_costs_no_more_than_itself() -> None:
    told = diagnose(learner(plain(3)).replace(steps=5), forecast=True).forecast
    assert told is not None
    assert told.steps == 5


def test_a_forecast_needs_an_optimizer() -> None:
    with pytest.raises(UsageError, match=r"expected an optimizer, got None"):
        diagnose(learner(plain(3)).replace(optimizer=None), forecast=True)


def codes(setup_: TrainingSetup) -> list[str]:
    told = diagnose(setup_, forecast=True)
    assert all(finding.code in told_codes(told) for finding in told.findings)
    return told_codes(told)


def told_codes(diagnosis) -> list[str]:  # type: ignore[no-untyped-def]
    return [finding.code for finding in diagnosis.findings]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_rate_beyond_the_curvature_and_one_too_small_are_found_and_a_sound_one_is_not(optimizer) -> None:  # type: ignore[no-untyped-def]
    sound = {torch.optim.SGD: 0.1, torch.optim.Adam: 1e-2}[optimizer]
    x, y = clusters()

    def at(lr: float) -> list[str]:
        return codes(setup(plain(4), x, y, optimizer=partial(optimizer, lr=lr), steps=200))

    assert not {"SG519", "SG520"} & set(at(sound))
    assert "SG519" in at(300 * sound)
    assert "SG520" in at(sound / 1e5)


@pytest.mark.parametrize("lr", [0.3, 0.9, 1.1, 2.0])
def test_the_overshoot_of_a_quadratic_loss_is_exact(lr: float) -> None:
    """A loss of curvature 2 (w^2): steps of gradient descent raise it from lr = 2 / curvature = 1 on, by theory."""
    x = torch.ones(64, 1, dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 3.0)
    told = diagnose(
        TrainingSetup(model, nn.functional.mse_loss, (x, 0 * x), partial(torch.optim.SGD, lr=lr), steps=200),
        forecast=True,
    )
    outlook = told.observation.outlook
    assert outlook is not None
    assert [1 - c / p for p, c in zip(outlook.linear, outlook.changes, strict=True)] == pytest.approx([lr] * 5)
    assert ("SG519" in told_codes(told)) == (lr > 1)


def test_a_set_up_that_cannot_step_has_findings_and_no_forecast() -> None:
    x, y = clusters()
    for sick in (
        setup(plain(3), x, y + 1),
        setup(plain(3), x, y, optimizer=lambda _: torch.optim.SGD(plain(2).parameters())),
    ):
        told = diagnose(sick, forecast=True)
        assert told.forecast is None
        assert told.findings[0].code in ("SG611", "SG107")
