"""Norms of many tensors, right at any scale: sums in float32 while they are safe, an exact scaled path where not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "WIDE",
    "entries",
    "exact_norm",
    "flat",
    "local",
    "norm_from",
    "norms_of",
    "on_host",
    "sum_of_squares",
]

# A dot product adds into dozens of float32 sums at once: over this length its relative error stays below 1e-6.
STRETCH = 2**12
WIDE = (torch.float32, torch.float64)
# Squares below float32's smallest normal number (1.2e-38) may be lost: a relative error of 1e-6 beside a mean of 1e-32.
SAFE_SQUARE = 1e-32


def local(tensor: Tensor) -> Tensor:
    """Return what of a tensor lies here, without its graph: the shard of a DTensor, a sparse one's entries.

    A complex entry counts as two, its real and imaginary part.
    """
    tensor = tensor.detach()
    if type(tensor) is not Tensor and hasattr(tensor, "to_local"):  # a DTensor, without importing its package
        tensor = tensor.to_local()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def flat(tensor: Tensor) -> Tensor:
    """Return all entries in one dimension, in any order; copied only where they do not lie side by side."""
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def entries(tensor: Tensor) -> Tensor:
    """Return all entries of a tensor that lie here, flat, in its dtype."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if type(tensor) is Tensor and tensor.dtype in WIDE and tensor.layout is torch.strided and tensor.is_contiguous():
        return tensor.view(-1)
    return flat(local(tensor))


def on_host(tensor: Tensor) -> np.ndarray:
    """Return all entries of a tensor that lie here, flat, as float32 or float64 on the host; copied only if need be."""
    values = entries(tensor).cpu()
    return (values if values.dtype in WIDE else values.float()).numpy()


@np.errstate(all="ignore")
def sum_of_squares(values: np.ndarray) -> float:
    """Return the sum of squares of flat float32 or float64 values, added by dot products; nan or inf if one is.

    NumPy takes half of torch's time, and starts no threads of its own up to ``STRETCH``.
    """
    rest = values.size % STRETCH
    whole = values.size - rest
    total = float(np.dot(values[whole:], values[whole:])) if rest else 0.0
    if whole:
        stretches = values[:whole].reshape(-1, STRETCH)
        total += math.fsum(np.vecdot(stretches, stretches).tolist())
    return total


def exact_norm(tensor: Tensor) -> tuple[float, int]:
    """Return the L2 norm of a tensor's finite entries, and how many are not finite. Waits for a GPU."""
    values = on_host(tensor)
    return norm_from(sum_of_squares(values), values)


def norm_from(squares: float, values: np.ndarray) -> tuple[float, int]:
    """Return the norm of flat values whose squares sum up to ``squares`` in float32, read anew where that is unsafe."""
    if _is_safe(squares, values.size):
        return math.sqrt(squares), 0
    exact = values[np.isfinite(values)].astype(np.float64)
    peak = float(np.abs(exact).max(initial=0.0))
    norm = peak * math.sqrt(np.square(exact / peak).sum()) if peak else 0.0
    return norm, values.size - exact.size


def norms_of(tensors: Sequence[Tensor | None]) -> list[tuple[float, int]]:
    """Return the norm of each tensor's finite entries, and how many are not; of None, NaN and 0.

    Short vectors are gathered and read at once, in float64: one by one, calls would take longer than the arithmetic.
    """
    found: dict[int, tuple[float, int]] = {}
    short = [(index, tensor) for index, tensor in enumerate(tensors) if tensor is not None and _is_short(tensor)]
    if short:
        gathered = torch.cat([vector.detach() for _, vector in short]).numpy().astype(np.float64)
        starts = np.cumsum([0, *(len(vector) for _, vector in short[:-1])])
        sums = np.add.reduceat(np.square(gathered), starts).tolist()
        pairs = zip(short, sums, strict=True)
        found = {index: (math.sqrt(squares), 0) for (index, _), squares in pairs if math.isfinite(squares)}
    for index, tensor in enumerate(tensors):
        if index not in found:
            found[index] = (math.nan, 0) if tensor is None else exact_norm(tensor)
    return [found[index] for index in range(len(tensors))]


def _is_short(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor and tensor.dim() == 1 and tensor.is_cpu and tensor.dtype is torch.float32
    return plain and 0 < len(tensor) <= STRETCH


def _is_safe(squares: float, size: int) -> bool:
    """Whether a sum of that many squares in float32 lost nothing that counts."""
    return SAFE_SQUARE * size < squares < math.inf
