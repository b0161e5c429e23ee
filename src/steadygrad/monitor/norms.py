"""Norms of many tensors, right at any scale: sums in float32 while they are safe, an exact scaled path where not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.signals.kernel import SquaresKernel

__all__ = [
    "SAFE_SQUARE",
    "WIDE",
    "compilable",
    "exact_norm",
    "local",
    "readable",
    "squares_of",
    "with_care",
]

# A dot product adds into dozens of float32 sums at once: over this length its relative error stays below 1e-6.
STRETCH = 2**12
# Torch's norm adds into few float32 sums. Of so many entries it is right within 1e-6, and 5e-5 where all are equal.
PIECE = 2**16
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


def exact_norm(tensor: Tensor) -> tuple[float, int]:
    """Return the L2 norm of a tensor's finite entries, and how many are not finite. Waits for a GPU."""
    values = _on_host(tensor)
    squares = _sum_of_squares(values)
    if SAFE_SQUARE * values.size < squares < math.inf:
        return math.sqrt(squares), 0
    if not squares and not values.any():
        return 0.0, 0
    exact = values[np.isfinite(values)].astype(np.float64)
    peak = float(np.abs(exact).max(initial=0.0))
    norm = peak * math.sqrt(np.square(exact / peak).sum()) if peak else 0.0
    return norm, values.size - exact.size


def _on_host(tensor: Tensor) -> np.ndarray:
    """Return all entries of a tensor that lie here, flat and in any order, as float32 or float64 on the host."""
    values = local(tensor).cpu()
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)  # as they lie there, so that nothing is copied
    return (values if values.dtype in WIDE else values.float()).reshape(-1).numpy()


@np.errstate(all="ignore")
def _sum_of_squares(values: np.ndarray) -> float:
    """Return the sum of squares, added by dot products of ``STRETCH`` in float32; nan or inf if an entry is."""
    whole = values.size - values.size % STRETCH
    stretches, rest = values[:whole].reshape(-1, STRETCH), values[whole:]
    return float(np.vecdot(stretches, stretches).sum(dtype=np.float64)) + float(np.dot(rest, rest))


def compilable(tensor: Tensor) -> bool:
    """Whether a compiled kernel can read it from one end to the other."""
    return readable(tensor) and tensor.is_contiguous()


def readable(tensor: Tensor) -> bool:
    """Whether a compiled kernel can read its entries, by their strides."""
    return (
        (type(tensor) is Tensor or type(tensor) is nn.Parameter)
        and tensor.dtype is torch.float32
        and tensor.layout is torch.strided
        and tensor.is_cpu
        and not tensor.is_neg()
    )


@torch.no_grad()
def squares_of(tensors: Sequence[Tensor | None], kernel: SquaresKernel | None = None) -> tuple[list[float], list[int]]:
    """Return the sum of squares of each CPU tensor's finite entries, and how many are not; of None, NaN and 0.

    All are read in one call: one by one, calls would take longer than the arithmetic. A ``kernel`` reads what it can.
    """
    squares = [0.0] * len(tensors)
    compiled: dict[int, Tensor] = {}
    if kernel is not None:
        compiled = {owner: tensor for owner, tensor in enumerate(tensors) if tensor is not None and compilable(tensor)}
        for owner, total in zip(compiled, kernel(list(compiled.values())), strict=True):
            squares[owner] = total
    pieces: list[Tensor] = []
    owners: list[int] = []
    for owner, tensor in enumerate(tensors):
        if owner in compiled:
            continue
        if type(tensor) is Tensor and tensor.dtype in WIDE and tensor.layout is torch.strided:
            if tensor.numel() <= PIECE:
                pieces.append(tensor)
            else:
                pieces += tensor.reshape(-1).split(PIECE)
            owners += [owner] * (len(pieces) - len(owners))
    for owner, norm in zip(owners, torch._foreach_norm(pieces) if pieces else (), strict=True):
        squares[owner] += (value := norm.item()) * value
    return with_care(squares, tensors)


def with_care(squares: list[float], tensors: Sequence[Tensor | None]) -> tuple[list[float], list[int]]:
    """Return sums of squares, those read anew that float32 may have lost, and counts of entries that are not finite.

    Args:
        squares: Sums of squares of tensors, added in float32 up to ``PIECE`` of them; changed in place.
        tensors: What they are of; of None, the sum becomes NaN.
    """
    bad = [0] * len(squares)
    for index, (total, tensor) in enumerate(zip(squares, tensors, strict=True)):
        if tensor is None:
            squares[index] = math.nan
        elif not SAFE_SQUARE * tensor.numel() < total < math.inf:
            norm, bad[index] = exact_norm(tensor)
            squares[index] = norm * norm
    return squares, bad
