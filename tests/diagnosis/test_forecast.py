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
    assert told.steps == 20
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
