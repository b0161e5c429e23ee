"""Room for the weights before a step, and sums over all tensors of a step: on a CPU, and on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from steadygrad.monitor.norms import local, squares_of
from steadygrad.monitor.weights import Copies, KeptWeights
from steadygrad.signals.kernel import SquaresKernel, kernel_pays, squares_kernel, steps_kernel

__all__ = ["DeviceBuffer", "HostBuffer", "HostSums"]

LEAST = 2**16  # parameters that are worth loading compiled kernels, which takes a second, and once three more
HostSums = tuple[list[float], list[int]]


class HostBuffer:
    """Sums over tensors on a CPU.

    Results are two lists, a number a tensor: sums of squares of the finite entries, and counts of the others; NaN where
    nothing was seen. Plain numbers, because a call of NumPy amid a training takes longer than a loop over hundreds.

    Args:
        weights: The tensors that will be stepped.
        wanted: Of which of them steps are measured.

    Attributes:
        compiled: The kernel that reads gradients; None as long as torch does.
    """

    def __init__(self, weights: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self._nothing: HostSums = [math.nan] * len(weights), [0] * len(weights)
        self._wanted = [index for index, is_wanted in enumerate(wanted) if is_wanted]
        self._weights = KeptWeights()
        self._size = sum(weight.numel() for weight in weights)
        self.compiled: SquaresKernel | None = None
        # Gradients that arrived, with torch's count of writes to them, and whether that count has ever missed one.
        self._stamps: dict[int, tuple[Tensor, int]] = {}
        self._unnoticed = False
        self.clear()

    def settle(self) -> None:
        """Read by compiled kernels from now on, if they pay: not before many looks follow, as they take a second."""
        if self.compiled is None and kernel_pays(self._size, least=LEAST) and (kernel := squares_kernel()) is not None:
            self.compiled, self._weights = kernel, KeptWeights(steps_kernel())

    def write(self, indices: Sequence[int], grads: Sequence[Tensor | None]) -> int:
        """Measure gradients that have arrived; of several the last one counts. Return how many entries are not finite.

        Those that an optimizer in the backward pass was faster with are None.
        """
        found = squares_of(grads, self.compiled)
        for index, grad, squares, bad in zip(indices, grads, *found, strict=True):
            self._arrived[0][index], self._arrived[1][index] = squares, bad
            if grad is not None:
                self._stamps[index] = grad, grad._version
        return sum(found[1])

    def arrived(self) -> HostSums:
        """Return the sums over the gradients that arrived."""
        return self._arrived

    def clear(self) -> None:
        """Forget what arrived."""
        self._arrived = self._nothing[0].copy(), self._nothing[1].copy()
        self._stamps.clear()

    @torch.no_grad()
    def keep(self, weights: Sequence[Tensor], trust: bool) -> None:
        """Keep the weights before a step; with ``trust``, those after the last one where nothing tells of a change."""
        self._weights.keep([weights[index] for index in self._wanted], trust)

    @torch.no_grad()
    def compare(self, weights: Sequence[Tensor]) -> tuple[list[float], list[float]]:
        """Return the sums of squares of the weights before the step, and of the step."""
        found = self._nothing[0].copy(), self._nothing[0].copy()
        for sums, seen in zip(found, self._weights.compare([weights[i] for i in self._wanted]), strict=True):
            for index, total in zip(self._wanted, seen, strict=True):
                sums[index] = total
        return found

    def used(self, grads: Sequence[Tensor | None], trust: bool) -> HostSums:
        """Return the sums over the gradients as the optimizer used them.

        All are read again: torch's count of writes to a tensor misses those through ``.data``, as
        ``parameter.grad.data.clamp_(-1, 1)`` makes them. With ``trust`` it is relied on, unless it missed one before.
        """
        same = {
            index for index, (grad, writes) in self._stamps.items() if grads[index] is grad and grad._version == writes
        }
        again = [i for i in range(len(grads)) if i not in same] if trust and not self._unnoticed else range(len(grads))
        found = self._arrived[0].copy(), self._arrived[1].copy()
        read = squares_of([grads[index] for index in again], self.compiled)
        for index, total, bad in zip(again, *read, strict=True):
            self._unnoticed |= index in same and total != found[0][index]
            found[0][index], found[1][index] = total, bad
        return found


class DeviceBuffer:
    """Sums over tensors on a GPU, side by side in one flat copy, each padded with zeros to whole blocks.

    It holds in turn the gradients as they arrive, the weights before a step, the step itself, and the gradients as
    the optimizer used them. One pass over the copy gives all sums, and nothing waits for it. Results are float64 of
    shape ``(2, tensors)`` on the device: sums of squares of the finite entries, and counts of the others.

    Args:
        weights: The tensors that will be stepped, all on one device.
        wanted: Of which of them steps are measured.
    """

    def __init__(self, weights: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        copies = Copies(weights)
        self._rows, self._views = copies.rows, copies.views
        device = self._rows.device
        self._tensor_of_row = torch.from_numpy(np.repeat(np.arange(len(weights)), copies.blocks)).to(device)
        self._before = torch.zeros(2, len(weights), dtype=torch.float64, device=device)
        self._unwanted = ~torch.tensor(wanted, device=device)

    def fits(self, index: int, grad: Tensor) -> bool:
        """Whether a gradient is as large as its weight here."""
        return local(grad).shape == self._views[index].shape

    def write(self, index: int, grad: Tensor) -> None:
        """Copy a gradient in as it arrives; of several the last one counts."""
        self._views[index].copy_(local(grad))

    def arrived(self) -> Tensor:
        """Return the sums over what the copy holds: the gradients that arrived, as long as no weights were kept."""
        finite = self._rows.isfinite()
        norms = torch.linalg.vector_norm(torch.where(finite, self._rows, 0.0), dim=1, dtype=torch.float64)
        rows = torch.stack([norms.square(), (~finite).sum(1).double()])
        return rows.new_zeros(2, len(self._views)).index_add_(1, self._tensor_of_row, rows)

    def keep(self, weights: Sequence[Tensor], trust: bool) -> None:
        """Copy the weights before a step, whether or not those after the last one are to be trusted."""
        self._before = self._sums_of(weights)

    def compare(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the sums of squares of the weights before the step, and of the step."""
        for view, weight in zip(self._views, weights, strict=True):
            view.sub_(local(weight).to(view.dtype))
        before, moved = (sums[0].masked_fill(self._unwanted, math.nan) for sums in (self._before, self.arrived()))
        return before, moved

    def used(self, grads: Sequence[Tensor | None]) -> Tensor:
        """Return the sums over the gradients as the optimizer used them."""
        return self._sums_of(grads)

    def _sums_of(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Return the sums over tensors of the right shapes; 0 for any other."""
        for view, tensor in zip(self._views, tensors, strict=True):
            part = None if tensor is None else local(tensor)
            if part is None or part.shape != view.shape:
                view.zero_()
            else:
                view.copy_(part)
        return self.arrived()
