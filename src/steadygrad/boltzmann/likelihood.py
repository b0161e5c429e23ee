"""How likely data are under a machine: exactly where that can be counted, estimated with its error where not.

Reconstruction error is left out on purpose: contrastive divergence does not minimize it, and it falls while the
likelihood falls too (Hinton 2010, sec. 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.boltzmann.annealing import Path
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.units import Bernoulli
from steadygrad.errors import UsageError

__all__ = [
    "Likelihood",
    "LogZ",
    "annealed_importance_sampling",
    "exact_log_z",
    "free_energy_gap",
    "log_z",
    "pseudo_log_likelihood",
]

EXACT_STATES = 2**20  # about a second for 784 visible units
_BLOCK = 4096  # states at a time


@dataclass(frozen=True)
class LogZ:
    """The logarithm of a partition function.

    Attributes:
        estimate: The number, whatever it is worth.
        standard_error: Of the estimate, from the spread of the importance weights; 0 if exact. It says nothing about
            regions that no chain has found.
        ess: Effective number of chains ``(sum w)^2 / sum w^2``; ``inf`` if exact.
        chains: Chains that were run; 0 if exact.
        temperatures: Steps of the annealing; 0 if exact.
        trusted: Whether ``ess`` is as large as was asked for.
    """

    estimate: float
    standard_error: float
    ess: float
    chains: int
    temperatures: int
    trusted: bool

    @property
    def value(self) -> float | None:
        """The estimate, or None if it is not to be trusted."""
        return self.estimate if self.trusted else None

    @property
    def exact(self) -> bool:
        """Whether it was counted, not estimated."""
        return self.chains == 0


@dataclass(frozen=True)
class Likelihood:
    """Mean log-likelihood of data in nats a sample.

    Attributes:
        mean: The headline number; None where the partition function is not to be trusted.
        standard_error: From the rows and from ``log_z`` together.
        estimate: The number, whatever it is worth.
        log_z: What was subtracted.
    """

    mean: float | None
    standard_error: float
    estimate: float
    log_z: LogZ

    def __str__(self) -> str:
        how = "exact" if self.log_z.exact else f"AIS, ESS {self.log_z.ess:.0f} of {self.log_z.chains} chains"
        if self.mean is None:
            return f"no number: the effective sample size of {self.log_z.ess:.1f} chains is too low (AIS)"
        return f"{self.mean:.2f} ± {self.standard_error:.2f} nats a sample ({how})"


def exact_log_z(machine: Machine, most_states: int = EXACT_STATES) -> float | None:
    """Return ``log Z`` by summing over all states of the smaller side in float64; None if there are too many."""
    counts = machine.visible.configurations(), machine.hidden.configurations()
    usable = [count for count in counts if 0 < count <= most_states]
    if not usable or not (machine.visible.exact and machine.hidden.exact):
        return None
    exact = machine.to(torch.float64, torch.device("cpu"))
    over_hidden = min(usable) == counts[1]
    units, free_energy = (exact.hidden, exact.hidden_free_energy) if over_hidden else (exact.visible, exact.free_energy)
    parts = [
        torch.logsumexp(-free_energy(units.all_states(start, min(start + _BLOCK, min(usable)))), 0)
        for start in range(0, min(usable), _BLOCK)
    ]
    return float(torch.logsumexp(torch.stack(parts), 0))


@torch.no_grad()
def annealed_importance_sampling(
    machine: Machine, betas: Tensor, chains: int, generator: torch.Generator, base: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run annealed importance sampling from a machine without weights.

    Args:
        machine: The model, on the generator's device.
        betas: Rising from 0 to 1, shape ``(temperatures + 1,)``.
        chains: Independent runs.
        generator: Where chance comes from.
        base: Visible biases of the base; by default the machine's own. Those of the data's base rates do best.

    Returns:
        Log importance weights, shape ``(chains,)``, float64, so that ``log Z`` is their log-mean-exp; and the standard
        deviation over chains of their growth at each temperature, shape ``(temperatures,)``.

    Reference:
        Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, 2008, sec. 4.1, eq. 18.
    """
    path = Path.of(machine, base)
    visible = path.draw_base(chains, generator)
    field = machine.hidden_field(visible)
    weights = torch.full((chains,), path.log_z_base(), dtype=torch.float64, device=visible.device)
    spreads = []
    steps = betas.tolist()
    for k, (beta, hotter) in enumerate(zip(steps[1:], steps, strict=False)):
        growth = path.log_weight(visible, field, beta) - path.log_weight(visible, field, hotter)
        weights += growth
        spreads.append(growth.std() if chains > 1 else growth.new_zeros(()))
        if k < len(steps) - 2:
            visible = path.step(field, beta, generator)
            field = machine.hidden_field(visible)
    return weights, torch.stack(spreads).cpu()


def log_z(
    machine: Machine,
    base: Tensor | None = None,
    *,
    chains: int = 100,
    temperatures: int = 1000,
    most_temperatures: int = 16000,
    least_ess: float | None = None,
    seed: int = 0,
) -> LogZ:
    """Return ``log Z`` exactly if a side has at most 2^20 states, else by annealed importance sampling.

    While the effective sample size is too low, the temperatures are doubled and moved to where the weights spread
    most; once ``most_temperatures`` do not suffice either, the result is marked as not trusted.

    Args:
        machine: The model.
        base: Visible biases where annealing starts.
        chains: Independent runs.
        temperatures: Steps of the first attempt.
        most_temperatures: Steps of the last attempt.
        least_ess: Effective sample size to reach; a fifth of the chains by default.
        seed: Where chance comes from.

    Raises:
        UsageError: If the units belong to no distribution exactly.
    """
    if not (machine.visible.exact and machine.hidden.exact):
        raise UsageError(
            "log_z: expected units with an exact distribution, got noisy ReLU units, which are an approximation. "
            "Compare such machines by what is trained on their features."
        )
    exact = exact_log_z(machine)
    if exact is not None:
        return LogZ(exact, 0.0, math.inf, 0, 0, trusted=True)
    wanted = chains / 5 if least_ess is None else least_ess
    generator = torch.Generator(machine.weight.device).manual_seed(seed)
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    while True:
        weights, spreads = annealed_importance_sampling(machine, betas, chains, generator, base)
        result = _summary(weights, len(betas) - 1, wanted)
        if result.trusted or 2 * (len(betas) - 1) > most_temperatures:
            return result
        betas = _denser(betas, spreads)


def _denser(betas: Tensor, spreads: Tensor) -> Tensor:
    """Return twice as many temperatures, so placed that the weights spread alike at each."""
    # Half of the temperatures stay evenly spread, because a small spread can also mean that no chain has moved yet.
    share = spreads.double() / spreads.double().sum() + 1 / len(spreads)
    cumulative = np.concatenate([[0], np.cumsum(share.numpy())]) / float(share.sum())
    even = np.linspace(0, 1, 2 * len(spreads) + 1)
    return torch.from_numpy(np.interp(even, cumulative, betas.numpy()))


def _summary(weights: Tensor, temperatures: int, wanted: float) -> LogZ:
    relative = (weights - weights.max()).exp()
    estimate = float(weights.max() + relative.mean().log())
    ess = float(relative.sum().square() / relative.square().sum())
    error = float(relative.std() / relative.mean()) / math.sqrt(len(weights))
    return LogZ(estimate, error, ess, len(weights), temperatures, trusted=ess >= wanted)


@torch.no_grad()
def pseudo_log_likelihood(machine: Machine, visible: Tensor) -> Tensor:
    """Return ``sum_i log p(v_i | all other v)`` of each row, over all units, shape ``(rows,)``.

    No partition function is needed and nothing is drawn at random. It compares machines of one kind; it is no
    likelihood.

    Raises:
        UsageError: If the visible units are not Bernoulli units.
    """
    if not isinstance(machine.visible, Bernoulli):
        raise UsageError(
            f"pseudo_log_likelihood: expected Bernoulli visible units, got {type(machine.visible).__name__}. "
            "Use the log-likelihood."
        )
    field = machine.hidden_field(visible)
    total = torch.zeros(len(visible), dtype=torch.float64, device=visible.device)
    for i, (bias, row) in enumerate(zip(machine.visible.bias, machine.weight, strict=True)):
        without = field - visible[:, i : i + 1] * row
        logit = bias + machine.hidden.cumulant(without + row) - machine.hidden.cumulant(without)
        total += visible[:, i] * logit - F.softplus(logit)
    return total


def free_energy_gap(machine: Machine, held_out: Tensor, seen: Tensor) -> float:
    """Return the mean free energy of held-out rows minus that of training rows, in nats.

    It needs no partition function. Near 0 while the machine generalizes; it grows as it begins to overfit.

    Reference:
        Hinton 2010, sec. 6.
    """
    return float(machine.free_energy(held_out).mean() - machine.free_energy(seen).mean())
