"""Room for the weights before a step, and sums over all tensors of a step: on a CPU, and on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from steadygrad.monitor.norms import exact_norm, flat, local, norm_from, sum_of_squares

__all__ = ["DeviceBuffer", "HostBuffer"]

# Long enough to run at memory speed, short enough for 10,000 tensors padded to whole blocks.
BLOCK = 1024
UNSEEN = (float("nan"), 0)


class HostBuffer:
    """Sums over tensors on a CPU: each is measured as it is touched, while it is in the cache.

    Results are float64 of shape ``(2, tensors)``: sums of squares of the finite entries, and counts of the others; NaN
    where nothing was seen.

    Args:
        weights: The tensors that will be stepped.
        wanted: Of which of them steps are measured.
    """

    def __init__(self, weights: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self._kept = [_room_for(weight) if want else None for weight, want in zip(weights, wanted, strict=True)]
        self._arrived = [UNSEEN] * len(self._kept)

    def write(self, index: int, grad: Tensor) -> tuple[float, int]:
        """Measure a gradient as it arrives; of several the last one counts. Return its norm and non-finite entries."""
        self._arrived[index] = exact_norm(grad)
        return self._arrived[index]

    def arrived(self) -> Tensor:
        """Return the sums over the gradients that arrived."""
        return _squared(self._arrived)

    def clear(self) -> None:
        """Forget what arrived."""
        self._arrived = [UNSEEN] * len(self._kept)

    def keep(self, weights: Sequence[Tensor]) -> Tensor:
        """Keep the weights before a step; return their sums."""
        norms = []
        for kept, weight in zip(self._kept, weights, strict=True):
            if kept is None:
                norms.append(UNSEEN)
            else:
                kept.copy_(flat(local(weight)))
                norms.append(norm_from(sum_of_squares(kept), kept))
        return _squared(norms)

    def compare(self, weights: Sequence[Tensor]) -> Tensor:
        """Return the sums over the step from what was kept to ``weights``."""
        norms = []
        for kept, weight in zip(self._kept, weights, strict=True):
            if kept is None:
                norms.append(UNSEEN)
            else:
                kept.sub_(flat(local(weight)))
                norms.append(norm_from(sum_of_squares(kept), kept))
        return _squared(norms)

    def sums_of(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Return the sums over any tensors."""
        return _squared([UNSEEN if tensor is None else exact_norm(tensor) for tensor in tensors])


def _room_for(weight: Tensor) -> Tensor:
    values = local(weight)
    return torch.empty(values.numel(), dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)


def _squared(norms: list[tuple[float, int]]) -> Tensor:
    sums = torch.tensor(norms, dtype=torch.float64).reshape(-1, 2).T
    sums[0].square_()
    return sums


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

    def keep(self, weights: Sequence[Tensor]) -> Tensor:
        """Keep the weights before a step; return their sums."""
        return self.sums_of(weights).masked_fill(self._unwanted, float("nan"))

    def compare(self, weights: Sequence[Tensor]) -> Tensor:
        """Return the sums over the step from what was kept to ``weights``."""
        for view, weight in zip(self._views, weights, strict=True):
            view.sub_(local(weight).to(view.dtype))
        return self.arrived().masked_fill(self._unwanted, float("nan"))

    def sums_of(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Return the sums over tensors of the right shapes; 0 for any other."""
        for view, tensor in zip(self._views, tensors, strict=True):
            part = None if tensor is None else local(tensor)
            if part is None or part.shape != view.shape:
                view.zero_()
            else:
                view.copy_(part)
        return self.arrived()
