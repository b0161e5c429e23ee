"""The energy of a restricted Boltzmann machine, and what follows from it in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.boltzmann.units import Units

__all__ = ["Machine"]


@dataclass(eq=False)
class Machine:
    """A restricted Boltzmann machine: two layers of units and the weights between them.

    ``E(v, h) = E_v(v) + E_h(h) - observed(v)^T W observed(h)``; for Bernoulli units the usual
    ``-a.v - b.h - v^T W h``.

    Attributes:
        weight: Shape ``(visible, hidden)``.
        visible: The visible units.
        hidden: The hidden units.
    """

    weight: Tensor
    visible: Units
    hidden: Units

    def hidden_field(self, visible: Tensor) -> Tensor:
        """Return the input of the hidden units for visible states, shape ``(rows, hidden)``."""
        return torch.addmm(self.hidden.offset, self.visible.observed(visible), self.weight)

    def visible_field(self, hidden: Tensor) -> Tensor:
        """Return the input of the visible units for hidden states, shape ``(rows, visible)``."""
        return torch.addmm(self.visible.offset, self.hidden.observed(hidden), self.weight.t())

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """Return ``E(v, h)``, shape ``(rows,)``."""
        sent = self.visible.observed(visible) @ self.weight
        own = self.visible.energy(visible) + self.hidden.energy(hidden)
        return own - (sent * self.hidden.observed(hidden)).sum(1)

    def free_energy(self, visible: Tensor) -> Tensor:
        """Return ``F(v) = -log sum_h exp(-E(v, h))``, shape ``(rows,)``."""
        return self.visible.energy(visible) - self.hidden.cumulant(self.hidden_field(visible))

    def hidden_free_energy(self, hidden: Tensor) -> Tensor:
        """Return ``-log sum_v exp(-E(v, h))`` (an integral for real units), shape ``(rows,)``."""
        return self.hidden.energy(hidden) - self.visible.cumulant(self.visible_field(hidden))

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All that is learned, by name; the tensors themselves."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield "weight", self.weight
        for side, units in (("visible", self.visible), ("hidden", self.hidden)):
            for name, value in units.parameters.items():
                yield f"{side}.{name}", value

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Machine:
        """Return a copy in another dtype or elsewhere."""
        weight = self.weight.to(dtype=dtype, device=device, copy=True)
        return Machine(weight, self.visible.to(dtype, device), self.hidden.to(dtype, device))
