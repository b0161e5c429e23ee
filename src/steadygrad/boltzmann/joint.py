"""Layers of different kinds side by side as one layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from steadygrad.boltzmann.units import Units

__all__ = ["Joint"]


class Joint(Units):
    """Layers side by side as one, as hidden units of the layer below and labels.

    Attributes:
        parts: The layers.
    """

    def __init__(self, *parts: Units) -> None:
        self.parts = parts
        self.exact = all(part.exact for part in parts)

    @property
    def size(self) -> int:
        """Units of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]  # the base class has a field
        """All biases, a copy."""
        return torch.cat([part.bias for part in self.parts])

    @property
    def offset(self) -> Tensor:
        """The offsets of all parts."""
        return torch.cat([part.offset for part in self.parts])

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters of part ``i`` as ``i.name``."""
        return {f"{i}.{name}": value for i, part in enumerate(self.parts) for name, value in part.parameters.items()}

    def _split(self, tensor: Tensor) -> Iterator[tuple[Units, Tensor]]:
        yield from zip(self.parts, tensor.split([part.size for part in self.parts], dim=-1), strict=True)

    def observed(self, states: Tensor) -> Tensor:
        """Return what each part shows."""
        return torch.cat([part.observed(piece) for part, piece in self._split(states)], 1)

    def energy(self, states: Tensor) -> Tensor:
        """Return the sum over parts."""
        return torch.stack([part.energy(piece) for part, piece in self._split(states)]).sum(0)

    def mean_(self, field: Tensor) -> Tensor:
        """Turn fields into means part by part, in place."""
        for part, piece in self._split(field):
            piece.copy_(part.mean_(piece.contiguous()))
        return field

    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Draw part by part, in place."""
        for part, piece in self._split(field):
            piece.copy_(part.sample_(piece.contiguous(), generator))
        return field

    def cumulant(self, field: Tensor) -> Tensor:
        """Return the sum over parts."""
        return torch.stack([part.cumulant(piece.contiguous()) for part, piece in self._split(field)]).sum(0)

    def gradients(self, states: Tensor, other: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return the derivatives by all biases as one, and by the rest of part ``i`` as ``i.name``."""
        weights = weight.split([part.size for part in self.parts])
        pieces = zip(self._split(states), weights, strict=True)
        found = [part.gradients(piece, other, rows) for (part, piece), rows in pieces]
        rest = {f"{i}.{k}": v for i, gradients in enumerate(found) for k, v in gradients.items() if k != "bias"}
        return {"bias": torch.cat([gradients["bias"] for gradients in found]), **rest}

    def add_(self, changes: dict[str, Tensor]) -> None:
        """Add to the parameters of the parts, in place."""
        for i, (part, piece) in enumerate(self._split(changes["bias"])):
            rest = {k.removeprefix(f"{i}."): v for k, v in changes.items() if k.startswith(f"{i}.")}
            part.add_({"bias": piece, **rest})

    @property
    def scale(self) -> Tensor:
        """The scales of all parts."""
        return torch.cat([torch.ones_like(part.bias) * part.scale for part in self.parts])

    def base(self, bias: Tensor) -> Joint:
        """Return the layers with other biases."""
        return Joint(*(part.base(piece) for part, piece in self._split(bias)))

    def configurations(self) -> int:
        """The product over parts."""
        return math.prod(part.configurations() for part in self.parts)

    def all_states(self, start: int, stop: int) -> Tensor:
        """Return all combinations of the parts' states, last part fastest."""
        counts = [part.configurations() for part in self.parts]
        every = torch.tensor(list(product(*map(range, counts))))[start:stop]
        columns = [
            part.all_states(0, count)[index] for part, count, index in zip(self.parts, counts, every.T, strict=True)
        ]
        return torch.cat(columns, 1)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Joint:
        """Return a copy in another dtype or elsewhere."""
        return Joint(*(part.to(dtype, device) for part in self.parts))
