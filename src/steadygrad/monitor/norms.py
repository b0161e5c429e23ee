"""Norms of many tensors at once, right at any scale: one flat buffer, norms of short blocks, combined in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["FlatBuffer", "exact_norm", "local"]

# Long enough to run at memory speed, short enough for float32 sums and for 10,000 tensors padded to whole blocks.
BLOCK = 1024
# A dot product adds into dozens of float32 sums at once: over this length its error stays near 1e-6.
STRETCH = 65536
# Squares below float32's smallest normal number (1.2e-38) may be lost: a relative error of 1e-6 beside a mean of 1e-32.
SAFE_RMS = 1e-16


def local(tensor: Tensor) -> Tensor:
    """Return what of a tensor lies here, without its graph: the shard of a DTensor, a sparse one's entries."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor and hasattr(tensor, "to_local"):  # a DTensor, without importing its package
        tensor = tensor.to_local()
    return tensor.coalesce().values() if tensor.is_sparse else tensor


@torch.no_grad()
def exact_norm(tensor: Tensor) -> tuple[float, int]:
    """Return the L2 norm of a tensor's finite entries, and how many are not finite. Waits for a GPU."""
    size = tensor.numel()
    values = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    values = values.reshape(-1)
    norm = _norm(values)
    if norm > SAFE_RMS * math.sqrt(size) and norm < math.inf:
        return norm, 0
    if not size:
        return 0.0, 0
    norms, bad = _scaled_norms(values.reshape(1, -1))
    return norms.item(), int(bad.item())


def _norm(values: Tensor) -> float:
    """Return the norm of flat values: dot products of stretches at memory speed, added in float64."""
    if values.numel() <= STRETCH:
        return math.sqrt(torch.dot(values, values).item())
    return math.sqrt(math.fsum(torch.dot(part, part).item() for part in values.split(STRETCH)))


def _scaled_norms(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norm of every row's finite entries, scaled by its peak, and the number of the others, as float64."""
    finite = rows.isfinite()
    values = torch.where(finite, rows, 0.0).double()
    peak = values.abs().amax(1, keepdim=True)
    norms = torch.linalg.vector_norm(values / peak.where(peak > 0, 1.0), dim=1) * peak[:, 0]
    return norms, (~finite).sum(1).double()


class FlatBuffer:
    """A copy of a list of tensors side by side, each padded with zeros to whole blocks.

    It holds in turn the gradients as they arrive, the weights before a step, the step itself, and the gradients as
    the optimizer used them. On a GPU one pass gives all norms, and nothing waits for it; on a CPU each tensor is
    measured as it is touched, while it is in the cache.

    Args:
        tensors: What to make room for, all on one device; only their shapes count.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        parts = [local(tensor) for tensor in tensors]
        wide = any(part.dtype == torch.float64 for part in parts)
        blocks = [max(-(-part.numel() // BLOCK), 1) for part in parts]
        self._starts = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
        device = parts[0].device if parts else torch.device("cpu")
        dtype = torch.float64 if wide else torch.float32
        self._flat = torch.zeros(int(self._starts[-1]) * BLOCK, device=device, dtype=dtype)
        self._rows = self._flat.view(-1, BLOCK)
        self.views = [
            self._flat[start * BLOCK : start * BLOCK + part.numel()].view(part.shape)
            for start, part in zip(self._starts[:-1].tolist(), parts, strict=True)
        ]
        self.on_cpu = device.type == "cpu"
        self._norms: list[tuple[float, int]] = []

    def load(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Copy tensors in (zeros where there is none or its shape is another) and return :meth:`measure`."""
        parts = [None if tensor is None else local(tensor) for tensor in tensors]
        for view, part in zip(self.views, parts, strict=True):
            if part is None or part.shape != view.shape or part.is_complex():
                view.zero_()
            else:
                view.copy_(part)
                if self.on_cpu:
                    self._norms.append(exact_norm(view))  # while it is in the cache
                    continue
            self._norms.append((0.0, 0))
        return self.measure()

    def subtract(self, tensors: Sequence[Tensor]) -> Tensor:
        """Turn what was loaded into its difference from ``tensors`` and return :meth:`measure`."""
        for view, tensor in zip(self.views, tensors, strict=True):
            view.sub_(local(tensor).to(view.dtype))
            self._norms.append(exact_norm(view) if self.on_cpu else (0.0, 0))
        return self.measure()

    def norms_of(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Return what :meth:`measure` would after loading ``tensors``; on a CPU nothing is copied."""
        if not self.on_cpu:
            return self.load(tensors)
        self._norms += [(0.0, 0) if tensor is None else exact_norm(local(tensor)) for tensor in tensors]
        return self.measure()

    def measure(self) -> Tensor:
        """Return L2 norms of the finite entries and counts of the others: float64, of shape ``(2, blocks)``.

        On a CPU of shape ``(2, tensors)``, and zeros if nothing was loaded since the last time.
        """
        if self.on_cpu:
            norms, self._norms = self._norms or [(0.0, 0)] * len(self.views), []
            return torch.tensor(norms, dtype=torch.float64).reshape(-1, 2).T
        self._norms.clear()
        finite = self._rows.isfinite()
        norms = torch.linalg.vector_norm(torch.where(finite, self._rows, 0.0), dim=1, dtype=torch.float64)
        return torch.stack([norms, (~finite).sum(1).double()])

    def per_tensor(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn a result of :meth:`measure` on the host into sums of squares and counts, one a tensor."""
        if self.on_cpu:
            return blocks[0] ** 2, blocks[1].copy()
        starts = self._starts[:-1]
        return np.add.reduceat(blocks[0] ** 2, starts), np.add.reduceat(blocks[1], starts)
