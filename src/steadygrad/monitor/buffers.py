"""Room for the weights before a step, and sums over all tensors of a step: on a CPU, and on a device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.adam_steps import AdamSteps
from steadygrad.monitor.norms import local, norm_from, norms_of, on_host, sum_of_squares

__all__ = ["DeviceBuffer", "HostBuffer"]

# Long enough to run at memory speed, short enough for 10,000 tensors padded to whole blocks.
BLOCK = 1024
PART = 2**17  # entries that stay in the cache between two readings
UNSEEN = (math.nan, 0)
# In float32 rounding changes a step that is this share of the weights by 2e-6 of its norm, and smaller ones by more.
SMALLEST = 1e-5


class HostBuffer:
    """Sums over tensors on a CPU.

    Results are float64 of shape ``(2, tensors)``: sums of squares of the finite entries, and counts of the others; NaN
    where nothing was seen.

    Args:
        optimizer: Steps them.
        weights: Its parameters.
        wanted: Of which of them steps are measured.
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self._wanted = [index for index, is_wanted in enumerate(wanted) if is_wanted]
        self._adam = AdamSteps(optimizer)
        self._arrived = [UNSEEN] * len(weights)
        self._copies: dict[int, np.ndarray] = {}
        self._squares: dict[int, float] = {}  # of the copies
        self._before = [UNSEEN] * len(weights)
        self._copied: list[int] = []
        self._rooms: dict[np.dtype[Any], np.ndarray] = {}  # fresh memory costs more than the arithmetic
        self._tiny: set[int] = set()  # whose last steps were too small, or not finite

    def write(self, indices: Sequence[int], grads: Sequence[Tensor | None]) -> int:
        """Measure gradients that have arrived; of several the last one counts. Return how many entries are not finite.

        Those that an optimizer in the backward pass was faster with are None.
        """
        found = norms_of(grads)
        for index, norm in zip(indices, found, strict=True):
            self._arrived[index] = norm
        return sum(bad for _, bad in found)

    def arrived(self) -> np.ndarray:
        """Return the sums over the gradients that arrived."""
        return _squared(self._arrived)

    def clear(self) -> None:
        """Forget what arrived."""
        self._arrived = [UNSEEN] * len(self._arrived)

    def keep(self, weights: Sequence[Tensor], recover: bool) -> None:
        """Copy the weights before a step; those alone, with ``recover``, that cannot be told from the optimizer."""
        told = self._adam.tells(weights) if recover else ()
        self._copied = [index for index in self._wanted if index in self._tiny or index not in told]
        self._before = [UNSEEN] * len(weights)
        for index in self._copied:
            values = on_host(weights[index])
            squares = sum(map(sum_of_squares, _parts(values)))
            if squares != self._squares.get(index):  # else the copy is as the last step left it
                self._copies[index] = values.copy()
            self._before[index] = norm_from(squares, values)

    @np.errstate(all="ignore")
    def compare(self, weights: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums over the weights before the step, and over the step."""
        before, moved = self._before, [UNSEEN] * len(weights)
        for index in self._copied:
            moved[index] = self._step(index, on_host(weights[index]))
        for index in set(self._wanted).difference(self._copied):
            squares, steps = self._adam.sums(weights[index])
            before[index], moved[index] = (math.sqrt(squares), 0), (math.sqrt(steps), 0)
        self._tiny = {index for index in self._wanted if not SMALLEST * before[index][0] < moved[index][0] < math.inf}
        return _squared(before), _squared(moved)

    def _step(self, index: int, weights: np.ndarray) -> tuple[float, int]:
        """Return the norm of a step, and copy the weights while they are in the cache: the next look may follow."""
        copies = self._copies[index]
        room = self._rooms.setdefault(weights.dtype, np.empty(PART, weights.dtype))
        steps, bad, squares = 0.0, 0, 0.0
        for part, copy in zip(_parts(weights), _parts(copies), strict=True):
            step = np.subtract(part, copy, out=room[: part.size])
            norm, broken = norm_from(sum_of_squares(step), step)
            steps, bad = steps + norm * norm, bad + broken
            copy[:] = part
            squares += sum_of_squares(copy)
        self._squares[index] = squares
        return math.sqrt(steps), bad

    def used(self, grads: Sequence[Tensor | None]) -> np.ndarray:
        """Return the sums over the gradients as the optimizer used them.

        All are read again: torch's count of writes to a tensor misses those through ``.data``, as
        ``parameter.grad.data.clamp_(-1, 1)`` makes them.
        """
        return _squared(norms_of(grads))


def _squared(norms: list[tuple[float, int]]) -> np.ndarray:
    sums = np.array(tuple(zip(*norms, strict=True)), dtype=np.float64).reshape(2, -1)
    np.square(sums[0], out=sums[0])
    return sums


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[start : start + PART] for start in range(0, values.size, PART))


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
        parts = [local(weight) for weight in weights]
        wide = any(part.dtype == torch.float64 for part in parts)
        blocks = [max(-(-part.numel() // BLOCK), 1) for part in parts]
        starts = np.concatenate([[0], np.cumsum(blocks)]) * BLOCK
        dtype, device = torch.float64 if wide else torch.float32, parts[0].device
        copy = torch.zeros(int(starts[-1]), device=device, dtype=dtype)
        self._rows = copy.view(-1, BLOCK)
        self._tensor_of_row = torch.from_numpy(np.repeat(np.arange(len(parts)), blocks)).to(device)
        self._before = torch.zeros(2, len(parts), dtype=torch.float64, device=device)
        self._unwanted = ~torch.tensor(wanted, device=device)
        self._views = [
            copy[start : start + part.numel()].view(part.shape)
            for start, part in zip(starts[:-1].tolist(), parts, strict=True)
        ]

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

    def keep(self, weights: Sequence[Tensor]) -> None:
        """Copy the weights before a step."""
        self._before = self._sums_of(weights)

    def compare(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the sums over the weights before the step, and over the step."""
        for view, weight in zip(self._views, weights, strict=True):
            view.sub_(local(weight).to(view.dtype))
        before, moved = (sums.masked_fill(self._unwanted, math.nan) for sums in (self._before, self.arrived()))
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
