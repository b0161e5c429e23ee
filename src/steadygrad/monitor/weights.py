"""The weights before a step, kept on a CPU, and what the step made of them: by torch, or by a compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import compilable, local, with_care
from steadygrad.signals.kernel import StepsKernel

__all__ = ["CompiledWeights", "CopiedWeights", "Copies"]

# Long enough to run at memory speed, short enough for 10,000 tensors padded to whole blocks.
BLOCK = 1024


class Copies:
    """Copies of tensors side by side in one flat tensor, each padded with zeros to whole blocks.

    Attributes:
        rows: All of it, a block a row.
        views: Each copy in the shape of its tensor.
        blocks: How many each of them takes.
        starts: The first row of each.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        parts = [local(tensor) for tensor in tensors]
        wide = any(part.dtype == torch.float64 for part in parts)
        self.blocks = [max(-(-part.numel() // BLOCK), 1) for part in parts]
        self.starts = np.cumsum([0, *self.blocks[:-1]])
        dtype = torch.float64 if wide else torch.float32
        self.rows = torch.zeros(sum(self.blocks), BLOCK, device=parts[0].device, dtype=dtype)
        flat, starts = self.rows.view(-1), (self.starts * BLOCK).tolist()
        self.views = [
            flat[start : start + part.numel()].view(part.shape) for start, part in zip(starts, parts, strict=True)
        ]


class CopiedWeights:
    """Weights of any kind, copied before a step and subtracted after it: two calls for all of them.

    Args:
        weights: Those that will be stepped; :meth:`keep` and :meth:`compare` get them again.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._copies = Copies(weights)

    def fits(self, weights: Sequence[Tensor]) -> bool:
        """Whether they are still as they were."""
        copies = self._copies.views
        return all(copy.shape == _here(weight).shape for copy, weight in zip(copies, weights, strict=True))

    def keep(self, weights: Sequence[Tensor], trust: bool) -> None:
        """Keep the weights before a step: there is nothing to ``trust``, as the copies hold the last step."""
        torch._foreach_copy_(self._copies.views, [_here(weight) for weight in weights])
        self._before = self._sums()

    def compare(self, weights: Sequence[Tensor]) -> tuple[list[float], list[float]]:
        """Return the sums of squares of the weights before the step, and of the step."""
        torch._foreach_sub_(self._copies.views, [_here(weight) for weight in weights])
        return self._before, self._sums()

    @np.errstate(all="ignore")
    def _sums(self) -> list[float]:
        rows = self._copies.rows.numpy()
        squares = np.add.reduceat(np.vecdot(rows, rows), self._copies.starts, dtype=np.float64).tolist()
        return with_care(squares, self._copies.views)[0]


class CompiledWeights:
    """The same for weights that a kernel can read: one pass over them before a step, and one after it.

    Args:
        weights: Those that will be stepped, all ``compilable``.
        kernel: Compares them with their copies.
    """

    def __init__(self, weights: Sequence[Tensor], kernel: StepsKernel) -> None:
        self._kernel = kernel
        self._copies = [torch.zeros_like(weight) for weight in weights]
        self._stamps: list[tuple[int, int]] = []  # of the weights after the last step
        self._unnoticed = False  # whether stamps have ever missed a change

    def fits(self, weights: Sequence[Tensor]) -> bool:
        """Whether they are still as they were."""
        copies = self._copies
        return all(compilable(w) and w.shape == copy.shape for w, copy in zip(weights, copies, strict=True))

    def keep(self, weights: Sequence[Tensor], trust: bool) -> None:
        """Keep the weights before a step.

        With ``trust`` those after the last step are relied on, where nothing tells of a change since and none ever came
        untold: torch's count of writes to a tensor misses those through ``.data``.
        """
        same = _stamps(weights) == self._stamps
        if not (same and trust) or self._unnoticed:
            moved, self._before = self._kernel(weights, self._copies)
            self._unnoticed |= same and any(moved)

    def compare(self, weights: Sequence[Tensor]) -> tuple[list[float], list[float]]:
        """Return the sums of squares of the weights before the step, and of the step."""
        if not self.fits(weights):
            raise ValueError("A step changed the shape, dtype or layout of a weight.")
        before = self._before
        moved, self._before = self._kernel(weights, self._copies)
        self._stamps = _stamps(weights)
        return before, moved


def _stamps(weights: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return where weights lie, and torch's counts of writes to them."""
    return [(weight.data_ptr(), weight._version) for weight in weights]


def _here(weight: Tensor) -> Tensor:
    """Return what of a weight lies here."""
    plain = type(weight) is nn.Parameter and weight.layout is torch.strided and not weight.is_complex()
    return weight if plain else local(weight)
