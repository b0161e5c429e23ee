"""Annealed importance sampling and pseudo-likelihood against exact sums."""

from __future__ import annotations

import pytest
import torch

from steadygrad.boltzmann import likelihood
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.joint import Joint
from steadygrad.boltzmann.likelihood import annealed_importance_sampling, exact_log_z, log_z, pseudo_log_likelihood
from steadygrad.boltzmann.units import Bernoulli, Gaussian, NoisyReLU, Softmax
from steadygrad.errors import UsageError


def machine(kind: str, scale: float = 0.6) -> Machine:
    generator = torch.Generator().manual_seed(3)
    a, b, s = (torch.randn(n, generator=generator) for n in (12, 8, 12))
    visible = {
        "bernoulli": lambda: Bernoulli(a),
        "joint": lambda: Joint(Bernoulli(a[:8]), Softmax(a[8:], 4)),
        "gaussian": lambda: Gaussian(a, s * 0.3),
    }[kind]()
    return Machine(torch.randn(12, 8, generator=generator) * scale, visible, Bernoulli(b))


@pytest.mark.parametrize("kind", ["bernoulli", "joint", "gaussian"])
@pytest.mark.parametrize("base", [None, torch.zeros(12)])
def test_ais_agrees_with_the_exact_sum(kind: str, base: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine(kind, 0.6 if kind != "gaussian" else 0.3)
    wanted = exact_log_z(model)
    monkeypatch.setattr(likelihood, "exact_log_z", lambda machine: None)
    found = log_z(model, base if kind != "gaussian" else None, chains=200, temperatures=300, seed=1)
    assert found.trusted
    assert not found.exact
    assert 0 < found.standard_error < 0.15
    assert found.estimate == pytest.approx(wanted, abs=4 * found.standard_error + 1e-3)


def test_the_standard_error_is_the_spread_over_runs() -> None:
    model = machine("bernoulli", 1.0)
    betas = torch.linspace(0, 1, 51)
    results = [
        likelihood._summary(annealed_importance_sampling(model, betas, 100, torch.Generator().manual_seed(i))[0], 50, 1)
        for i in range(40)
    ]
    spread = torch.tensor([result.estimate for result in results]).std().item()
    claimed = sum(result.standard_error for result in results) / len(results)
    assert claimed == pytest.approx(spread, rel=0.4)


def test_temperatures_are_added_until_the_effective_sample_size_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine("bernoulli", 1.5)
    wanted = exact_log_z(model)
    monkeypatch.setattr(likelihood, "exact_log_z", lambda machine: None)
    found = log_z(model, chains=200, temperatures=4, least_ess=120, seed=0)
    assert found.trusted
    assert found.temperatures > 4
    assert found.estimate == pytest.approx(wanted, abs=0.5)


def test_no_number_is_given_where_the_effective_sample_size_stays_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "exact_log_z", lambda machine: None)
    found = log_z(machine("bernoulli", 3.0), chains=100, temperatures=2, most_temperatures=4, least_ess=90)
    assert found.value is None
    assert found.ess < 90


def test_the_smaller_side_is_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = Machine(torch.randn(40, 5, generator=generator), Bernoulli(torch.zeros(40)), Bernoulli(torch.zeros(5)))
    tall = Machine(wide.weight.t().contiguous(), Bernoulli(torch.zeros(5)), Bernoulli(torch.zeros(40)))
    assert exact_log_z(wide) == pytest.approx(exact_log_z(tall), abs=1e-9)
    both = Machine(torch.zeros(40, 40), Bernoulli(torch.zeros(40)), Bernoulli(torch.zeros(40)))
    assert exact_log_z(both) is None


def test_pseudo_likelihood_is_the_product_of_the_exact_conditionals() -> None:
    model = machine("bernoulli").to(torch.float64)
    v = model.visible.all_states(0, 2**12)
    log_p = -model.free_energy(v)
    rows = torch.tensor([5, 77, 4000])
    wanted = sum(log_p[rows] - torch.logaddexp(log_p[rows], log_p[rows ^ (1 << i)]) for i in range(12))
    torch.testing.assert_close(pseudo_log_likelihood(model, v[rows]), wanted)


def test_what_has_no_likelihood_is_declined() -> None:
    relu = Machine(torch.zeros(4, 3), Bernoulli(torch.zeros(4)), NoisyReLU(torch.zeros(3)))
    with pytest.raises(UsageError, match="expected units with an exact distribution, got noisy ReLU"):
        log_z(relu)
    with pytest.raises(UsageError, match="expected Bernoulli visible units, got Gaussian"):
        pseudo_log_likelihood(machine("gaussian"), torch.zeros(1, 12))
