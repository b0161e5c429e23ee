from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import SetupError, UsageError
from steadygrad.training import TrainingSetup, WithLearningRate, search_learning_rate


def setup(lr: float = 0.1, **changes: object) -> TrainingSetup:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(128, 4, generator=g)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
    settings = {"loss": F.mse_loss, "optimizer": partial(torch.optim.SGD, lr=lr), "batch_size": 32}
    return TrainingSetup(model, train=(x, x[:, :1] * 3), **settings | changes)


@pytest.mark.parametrize("start", [1e-3, 0.1, 1.0, 10.0])
def test_the_search_climbs_to_a_good_rate_from_both_sides(start: float) -> None:
    found = search_learning_rate(setup(start), steps=20, seed=0)
    assert 0.05 <= found.lr <= 0.5
    assert found.loss == min(found.losses.values())


@pytest.mark.parametrize("start", [0.0, 1e-9, 1e6])
def test_a_rate_out_of_all_bounds_is_not_where_the_search_starts(start: float) -> None:
    found = search_learning_rate(setup(start), steps=20, seed=0)
    assert 1e-3 in found.losses
    assert 0.01 <= found.lr <= 0.5


def test_rates_lie_half_a_decade_apart_and_cost_their_steps() -> None:
    found = search_learning_rate(setup(), steps=10, seed=0, most=5)
    rates = list(found.losses)
    assert len(rates) <= 5
    assert rates == sorted(rates)
    assert all(b / a == pytest.approx(math.sqrt(10), rel=0.01) for a, b in pairwise(rates))
    assert found.steps == 10 * len(rates)


def test_rates_that_diverge_count_as_infinitely_bad_and_only_what_they_cost() -> None:
    found = search_learning_rate(setup(10.0, loss=lambda o, t: F.mse_loss(o, t) * 1e10), steps=40, seed=0, most=3)
    assert found.loss == math.inf
    assert set(found.losses.values()) == {math.inf}
    assert found.steps < 3 * 40
    assert found.lr == min(found.losses)


def test_the_same_seed_gives_the_same_search_and_touches_nothing() -> None:
    given = setup()
    before, state = given.model.weight.clone(), torch.get_rng_state()
    assert search_learning_rate(given, 5, seed=3) == search_learning_rate(given, 5, seed=3)
    assert torch.equal(given.model.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_optimizer_or_one_without_a_rate_is_told() -> None:
    class Rateless(torch.optim.Optimizer):
        def __init__(self, parameters) -> None:  # type: ignore[no-untyped-def]
            super().__init__(parameters, {})

        def step(self, closure=None) -> None:  # type: ignore[no-untyped-def]
            pass

    with pytest.raises(UsageError, match=r"expected an optimizer, got None"):
        search_learning_rate(setup(optimizer=None), 5, 0)
    with pytest.raises(
        SetupError, match=r"^optimizer: expected a number lr in every parameter group of Rateless, found"
    ):
        search_learning_rate(setup(optimizer=Rateless), 5, 0)
    with pytest.raises(
        SetupError, match=r"^optimizer: expected a number lr in every parameter group of SGD, found none"
    ):
        search_learning_rate(setup(optimizer=lambda p: _without_rate(torch.optim.SGD(p, lr=0.1))), 5, 0)


def _without_rate(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    optimizer.param_groups[0]["lr"] = None
    return optimizer


def test_groups_keep_their_ratio() -> None:
    def groups(parameters) -> torch.optim.Optimizer:  # type: ignore[no-untyped-def]
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight], "lr": 0.1}, {"params": [bias], "lr": 0.4}], lr=1.0)

    optimizer = WithLearningRate(groups, 0.02)(nn.Linear(2, 2).parameters())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.02])
    assert optimizer.defaults["lr"] == 0.02


def test_rates_of_zero_become_the_rate() -> None:
    optimizer = WithLearningRate(partial(torch.optim.SGD, lr=0.0), 0.5)(nn.Linear(2, 2).parameters())
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_rate_kept_in_a_tensor_stays_one() -> None:
    optimizer = WithLearningRate(partial(torch.optim.Adam, lr=torch.tensor(0.1)), 0.5)(nn.Linear(2, 2).parameters())
    assert torch.equal(optimizer.param_groups[0]["lr"], torch.tensor(0.5))
