"""Distributions between a base without weights and a machine, which tempering and annealed sampling pass through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.units import Units

__all__ = ["Path"]


@dataclass(frozen=True, eq=False)
class Path:
    """The machines ``p_beta ~ exp(-(1 - beta) E_0 - beta E_1)``, from a base at 0 to the machine at 1.

    ``E_0`` has no weights, no hidden biases, and visible biases ``base``, so that it is known in full.

    Attributes:
        machine: ``E_1``.
        base: The visible units of ``E_0``.

    Reference:
        Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, 2008, sec. 4.1, with the base's
        hidden units shared instead of separate.
    """

    machine: Machine
    base: Units

    @classmethod
    def of(cls, machine: Machine, bias: Tensor | None = None) -> Self:
        """Return the path from the machine's own visible biases, or from ``bias`` where these are discrete units."""
        return cls(machine, machine.visible.base(machine.visible.bias if bias is None else bias.to(machine.weight)))

    def log_z_base(self) -> float:
        """Return the logarithm of the base's partition function."""
        silent = torch.zeros(1, self.machine.hidden.size, dtype=torch.float64)
        base = self.base.to(torch.float64, torch.device("cpu"))
        return float((self.machine.hidden.cumulant(silent) + base.cumulant(base.offset[None])).item())

    def draw_base(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return independent visible states of the base, shape ``(rows, visible)``."""
        return self.base.sample_(self.base.offset.expand(rows, -1).clone(), generator)

    def log_weight(self, visible: Tensor, field: Tensor, beta: Tensor | float) -> Tensor:
        """Return ``log p*_beta(v)``, not normalized, shape ``(rows,)``.

        Args:
            visible: Visible states.
            field: The machine's hidden field for them.
            beta: One number, or one a row with shape ``(rows, 1)``.
        """
        own = torch.lerp(self.base.energy(visible), self.machine.visible.energy(visible), _flat(beta, visible))
        return self.machine.hidden.cumulant(beta * field) - own

    def step(self, field: Tensor, beta: Tensor | float, generator: torch.Generator) -> Tensor:
        """Return visible states after one Gibbs step at ``beta`` from states with that hidden field."""
        machine = self.machine
        hidden = machine.hidden.sample_(beta * field, generator)
        sent = machine.hidden.observed(hidden) @ machine.weight.t()
        offset = torch.lerp(self.base.offset, machine.visible.offset, _rows(beta, field))
        return machine.visible.sample_(sent.mul_(beta).add_(offset), generator)


def _flat(beta: Tensor | float, like: Tensor) -> Tensor:
    return _rows(beta, like).reshape(-1)


def _rows(beta: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(beta, dtype=like.dtype, device=like.device)
