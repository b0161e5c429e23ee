"""The compiled loops against their twins in torch, and the quality of their random numbers."""

from __future__ import annotations

import math

import pytest
import torch

from steadygrad.boltzmann import kernels, units
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.gibbs import CD
from steadygrad.boltzmann.learning import Learner, Rules
from steadygrad.boltzmann.units import Bernoulli, column_mean, kernels_for

SHAPE = (200, 300)
FORMATS = [torch.float32, torch.bfloat16]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", FORMATS)
def test_means_are_the_sigmoid_and_states_follow_them(dtype: torch.dtype) -> None:
    field = torch.linspace(-100, 100, 60_000).view(SHAPE).to(dtype)
    mean = torch.empty_like(field)
    states = kernels.draw_(field.clone(), mean, seeded())
    tolerance = 0.01 if dtype == torch.bfloat16 else 1e-5  # at the ends
    torch.testing.assert_close(mean, field.sigmoid(), rtol=tolerance, atol=1e-37)
    assert set(states.unique().tolist()) <= {0.0, 1.0}
    assert not states[field < -30].any()
    assert states[field > 30].all()
    assert torch.equal(states, kernels.draw_(field.clone(), None, seeded()))
    assert not torch.equal(states, kernels.draw_(field.clone(), None, seeded(1)))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("probability", [0.003, 0.3, 0.5, 0.96])
def test_draws_have_the_right_frequency_and_no_memory(dtype: torch.dtype, probability: float) -> None:
    field = torch.full((100, 700), math.log(probability / (1 - probability))).to(dtype)
    wanted = float(field[0, 0].double().sigmoid())
    generator = seeded()
    draws = torch.stack([kernels.draw_(field.clone(), None, generator).double() for _ in range(6)])
    deviation = wanted * (1 - wanted)
    assert abs(float(draws.mean()) - wanted) < 5 * math.sqrt(deviation / draws.numel())
    away = (draws - wanted) / math.sqrt(deviation)
    neighbors = {"call": (away[1:], away[:-1]), "row": (away[:, 1:], away[:, :-1])}
    neighbors |= {f"column {n}": (away[..., n:], away[..., :-n]) for n in (1, 2, 3, 8, 16, 64)}
    for name, (one, other) in neighbors.items():
        assert abs(float((one * other).mean())) < 5 / math.sqrt(one.numel()), name
    by_column = away.sum((0, 1)).square() / 600
    assert abs(float(by_column.mean()) - 1) < 5 * math.sqrt(2 / 700) + 0.01 / deviation / 600


def test_column_means_and_steps_are_those_of_torch() -> None:
    rows = torch.randn(SHAPE, generator=seeded()).bfloat16()
    torch.testing.assert_close(column_mean(rows), rows.float().mean(0))
    weight, velocity = torch.randn(SHAPE, generator=seeded(1)), torch.randn(SHAPE, generator=seeded(2))
    moved = 0.5 * velocity + 0.1 * rows.float()
    wanted, copy = 0.99 * weight + moved, torch.empty_like(rows)
    plain = 0.99 * weight + 0.1 * rows.float()
    other = weight.clone()
    kernels.step_(weight, velocity, rows, copy, 0.1, 0.5, 0.99)
    torch.testing.assert_close(weight, wanted)
    torch.testing.assert_close(velocity, moved)
    assert torch.equal(copy, weight.bfloat16())
    kernels.step_(other, None, rows, copy, 0.1, 0.0, 0.99)
    torch.testing.assert_close(other, plain)


def test_products_with_a_vector_are_those_of_torch() -> None:
    left = torch.randn(SHAPE, generator=seeded()).bfloat16()
    right, vector = torch.randn((200, 70), generator=seeded(1)).bfloat16(), torch.randn(70, generator=seeded(2))
    wanted = left.double().t() @ (right.double() @ vector.double())
    torch.testing.assert_close(kernels.sandwich(left, right, vector), wanted.float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_learning_gives_the_same_with_and_without_the_loops(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over many steps agree: the two draw other random numbers."""
    data = (torch.rand(200, 160, generator=seeded()) < torch.rand(160, generator=seeded(1))).float()

    def learned(steps: int) -> torch.Tensor:
        machine = Machine(torch.zeros(160, 120), Bernoulli(torch.zeros(160)), Bernoulli(torch.zeros(120)))
        rules = Rules(weight_decay=0.01)
        learner = Learner(machine, CD(), seeded(), rules, torch.bfloat16)
        for _ in range(steps):
            learner.step(data, 0.02, momentum)
        return machine.visible.bias

    assert kernels_for(torch.empty(160, 120)) is kernels
    fast = learned(60)
    monkeypatch.setattr(units, "_kernels", lambda: None)
    assert kernels_for(torch.empty(160, 120)) is None
    apart = fast - learned(60)
    assert float(fast.std()) > 10 * float(apart.std())
    assert abs(float(apart.mean())) < 0.005
