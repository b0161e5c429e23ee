"""Energies, cumulants, gradients and samples against enumeration and autograd in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.gibbs import CD, PCD, Tempering, gibbs
from steadygrad.boltzmann.joint import Joint
from steadygrad.boltzmann.learning import Learner, Rules, gradient, value_at
from steadygrad.boltzmann.likelihood import exact_log_z
from steadygrad.boltzmann.units import Bernoulli, Gaussian, NoisyReLU, Softmax


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def machine(kind: str) -> Machine:
    visible = {
        "bernoulli": lambda: Bernoulli(normal(6, seed=1)),
        "softmax": lambda: Softmax(normal(6, seed=1), 3),
        "joint": lambda: Joint(Bernoulli(normal(3, seed=1)), Softmax(normal(3, seed=2), 3)),
        "gaussian": lambda: Gaussian(normal(6, seed=1), normal(6, seed=2) * 0.5),
    }[kind]()
    return Machine(normal(6, 4, seed=3) * 0.7, visible, Bernoulli(normal(4, seed=4)))


DISCRETE = ["bernoulli", "softmax", "joint"]


def states(layer: object) -> Tensor:
    return layer.all_states(0, layer.configurations())


@pytest.mark.parametrize("kind", DISCRETE)
def test_free_energies_and_log_z_sum_the_energy_over_all_states(kind: str) -> None:
    model = machine(kind)
    v, h = states(model.visible), states(model.hidden)
    assert len(v.unique(dim=0)) == model.visible.configurations() == len(v)
    joint = torch.stack([model.energy(v, row.expand(len(v), -1)) for row in h], 1)
    torch.testing.assert_close(model.free_energy(v), -torch.logsumexp(-joint, 1))
    torch.testing.assert_close(model.hidden_free_energy(h), -torch.logsumexp(-joint, 0))
    assert exact_log_z(model) == pytest.approx(float(torch.logsumexp(-joint, (0, 1))), abs=1e-10)


def test_a_gaussian_machine_integrates_to_its_log_z() -> None:
    model = Machine(normal(1, 2, seed=1), Gaussian(normal(1, seed=2), normal(1, seed=3)), Bernoulli(normal(2, seed=4)))
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)[:, None]
    integral = float((-model.free_energy(grid)).exp().sum() * (grid[1] - grid[0]))
    assert exact_log_z(model) == pytest.approx(math.log(integral), abs=1e-8)


def exact_gradient(model: Machine, data: Tensor) -> dict[str, Tensor]:
    for parameter in model.parameters.values():
        parameter.requires_grad_()
    h = states(model.hidden)
    z = torch.logsumexp(-model.hidden_free_energy(h), 0)
    (-model.free_energy(data).mean() - z).backward()
    found = {name: parameter.grad for name, parameter in model.parameters.items()}
    for parameter in model.parameters.values():
        parameter.requires_grad_(False)
    return found


@pytest.mark.parametrize("kind", DISCRETE)
def test_the_gradient_is_the_one_of_the_log_likelihood(kind: str) -> None:
    model = machine(kind)
    v = states(model.visible)
    data = v[[0, 3, 5]]
    wanted = exact_gradient(model, data)
    p = (-model.free_energy(v)).softmax(0)
    hidden = model.hidden.mean_(model.hidden_field(data))
    found: dict[str, Tensor] = {}
    for weight, row in zip(p, v, strict=True):
        sample = row[None]
        part = gradient(model, (data, hidden), (sample, model.hidden.mean_(model.hidden_field(sample))), None)
        named = {"weight": part.weight, **part.biases}
        found = {name: found.get(name, 0) + weight * value for name, value in named.items()}
    torch.testing.assert_close(found["weight"], wanted["weight"])
    torch.testing.assert_close(found["hidden.bias"], wanted["hidden.bias"])
    biases = torch.cat([value for name, value in wanted.items() if name.startswith("visible") and "bias" in name])
    torch.testing.assert_close(found["visible.bias"], biases)


def test_the_gradient_of_gaussian_units_is_the_one_of_the_log_likelihood() -> None:
    model = machine("gaussian")
    data = normal(3, 6, seed=8)
    wanted = exact_gradient(model, data)
    # The model's own part by many samples of v given each h, drawn antithetically: their odd errors cancel.
    h = states(model.hidden)
    p = (-model.hidden_free_energy(h)).softmax(0)
    sigma = model.visible.sigma
    hidden = model.hidden.mean_(model.hidden_field(data))
    gradients = model.visible.gradients(data, hidden, model.weight)
    signal = h @ model.weight.t()
    bias = gradients["bias"] - ((signal - signal) * p[:, None]).sum(0)
    torch.testing.assert_close(bias, wanted["visible.bias"])
    variance = (1 + signal.square() - signal.square()) / 2  # E u (u - x) = 1 given h
    torch.testing.assert_close(
        gradients["log_variance"] - (variance * p[:, None]).sum(0), wanted["visible.log_variance"]
    )
    found = gradient(model, (data, hidden), (data[:1], hidden[:1] * 0), None)
    u = model.visible.observed(data)
    torch.testing.assert_close(found.weight, u.t() @ hidden / 3)
    torch.testing.assert_close(
        found.biases["visible.bias"] / sigma**2
        + model.visible.gradients(data[:1], hidden[:1] * 0, model.weight)["bias"],
        gradients["bias"],
    )
    torch.testing.assert_close(wanted["weight"], u.t() @ hidden / 3 - (signal * p[:, None]).t() @ h)


@pytest.mark.parametrize("kind", ["bernoulli", "joint", "gaussian"])
def test_centering_is_the_gradient_of_the_centered_machine(kind: str) -> None:
    """With ``a = a' - s W l`` and ``b = b' - W^T m`` the chain rule maps plain gradients to centered ones."""
    model = machine(kind)
    data, sample = (normal(5, 6, seed=5).sigmoid(), normal(7, 6, seed=6).sigmoid())
    pairs = [(v, model.hidden.mean_(model.hidden_field(v))) for v in (data, sample)]
    m, n = normal(6, seed=7), normal(4, seed=8)
    plain, centered = gradient(model, *pairs, None), gradient(model, *pairs, (m, n))
    s = torch.ones(6, dtype=torch.float64) * model.visible.scale
    by_weight = (
        plain.weight - torch.outer(plain.biases["visible.bias"] / s, n) - torch.outer(m, plain.biases["hidden.bias"])
    )
    torch.testing.assert_close(centered.weight, by_weight)
    torch.testing.assert_close(centered.biases["visible.bias"], plain.biases["visible.bias"] - s * (by_weight @ n))
    torch.testing.assert_close(centered.biases["hidden.bias"], plain.biases["hidden.bias"] - by_weight.t() @ m)


@pytest.mark.parametrize("kind", DISCRETE)
def test_gibbs_sampling_reaches_the_exact_distribution(kind: str) -> None:
    model = machine(kind)
    generator = torch.Generator().manual_seed(0)
    sample = gibbs(model, states(model.visible)[:1].repeat(20_000, 1), 60, generator)
    v = states(model.visible)
    p = (-model.free_energy(v)).softmax(0)
    observed = (sample[:, None] == v).all(2).double().mean(0)
    torch.testing.assert_close(observed, p, atol=0.012, rtol=0)


@pytest.mark.parametrize("chains", ["pcd", "tempering"])
def test_chains_reach_the_exact_distribution(chains: str) -> None:
    model = machine("bernoulli")
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(4000, 6, dtype=torch.float64)
    kept = (
        PCD(torch.zeros(4000, 4, dtype=torch.float64))
        if chains == "pcd"
        else Tempering(start.repeat(5, 1, 1), Bernoulli(torch.zeros(6, dtype=torch.float64)))
    )
    total = torch.zeros(6, dtype=torch.float64)
    for step in range(90):
        sample, _ = kept.advance(model, torch.zeros(1, 4), generator)
        total += sample.mean(0) if step >= 30 else 0
    v = states(model.visible)
    p = (-model.free_energy(v)).softmax(0)
    torch.testing.assert_close(total / 60, (p[:, None] * v).sum(0), atol=0.012, rtol=0)
    if chains == "tempering":
        assert kept.swap_rate > 0.3


def test_tempering_mixes_between_modes_where_plain_chains_stay() -> None:
    # Two far modes, all zeros and all ones, of equal weight.
    strong = Machine(torch.full((8, 2), 6.0), Bernoulli(torch.full((8,), -6.0)), Bernoulli(torch.full((2,), -24.0)))
    start = torch.zeros(200, 8)
    plain, tempered = PCD(torch.zeros(200, 2)), Tempering(start.repeat(12, 1, 1), Bernoulli(torch.zeros(8)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        one, other = (kept.advance(strong, torch.zeros(1, 2), generator)[0] for kept in (plain, tempered))
    assert one.mean() < 0.1
    assert 0.35 < other.mean() < 0.65


def test_noisy_relu_units_sum_their_copies() -> None:
    layer = NoisyReLU(torch.zeros(1, dtype=torch.float64))
    field = torch.linspace(-6, 12, 50, dtype=torch.float64)[:, None].requires_grad_()
    copies = torch.nn.functional.softplus(field - torch.arange(400) - 0.5).sum(1)
    torch.testing.assert_close(layer.cumulant(field), copies, atol=0.06, rtol=0)
    (slope,) = torch.autograd.grad(layer.cumulant(field).sum(), field)  # of the integral of softplus: softplus
    torch.testing.assert_close(slope, torch.nn.functional.softplus(field))
    drawn = layer.sample_(torch.full((200_000, 1), 3.0, dtype=torch.float64), torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / (1 + math.exp(-3)), abs=0.02)


def test_schedules_run_straight_between_their_knots() -> None:
    assert [value_at({0: 0.5, 4: 0.9}, epoch) for epoch in (-1, 0, 2, 4, 9)] == pytest.approx([0.5, 0.5, 0.7, 0.9, 0.9])
    assert value_at(0.1, 7) == 0.1


def taught(rules: Rules, momentum: float = 0.0, precision: torch.dtype = torch.float32) -> Machine:
    generator = torch.Generator().manual_seed(0)
    model = Machine(torch.randn(6, 4, generator=generator) * 0.1, Bernoulli(torch.zeros(6)), Bernoulli(torch.zeros(4)))
    learner = Learner(model, CD(1), generator, rules, precision)
    data = (torch.rand(40, 6, generator=generator) < 0.4).float()
    for _ in range(200):
        learner.step(data, 0.05, momentum)
    return model


def test_decay_and_l1_shrink_weights_and_spare_biases() -> None:
    plain, decayed, sparse = taught(Rules()), taught(Rules(weight_decay=0.5)), taught(Rules(l1=0.2))
    assert decayed.weight.norm() < 0.7 * plain.weight.norm()
    assert (sparse.weight == 0).float().mean() > 0.3
    assert decayed.visible.bias.norm() > 0.7 * plain.visible.bias.norm()


def test_the_sparsity_target_is_approached() -> None:
    data = (torch.rand(200, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    free, sparse = taught(Rules()), taught(Rules(sparsity_target=0.05, sparsity_cost=3.0))
    active = [model.hidden.mean_(model.hidden_field(data)).mean().item() for model in (free, sparse)]
    assert active[0] > 0.3
    assert active[1] == pytest.approx(0.05, abs=0.05)


def test_bfloat16_learns_what_float32_learns() -> None:
    exact, rounded = taught(Rules(), 0.5), taught(Rules(), 0.5, torch.bfloat16)
    assert rounded.weight.dtype == torch.float32
    assert (exact.visible.bias - rounded.visible.bias).abs().max() < 0.15
