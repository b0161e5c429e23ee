"""Norms of many tensors, right at any scale: sums in float32 while they are safe, an exact scaled path where not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["WIDE", "entries", "exact_norm", "flat", "is_safe", "local", "norm_from", "sum_of_squares"]

# A dot product adds into dozens of float32 sums at once: over this length its relative error stays near 1e-6.
STRETCH = 2**18
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


def sum_of_squares(values: Tensor) -> float:
    """Return the sum of squares of flat float32 or float64 values, added by dot products; nan or inf if one is."""
    if values.numel() <= STRETCH:
        return torch.dot(values, values).item()
    return math.fsum(torch.dot(part, part).item() for part in values.split(STRETCH))


def exact_norm(tensor: Tensor) -> tuple[float, int]:
    """Return the L2 norm of a tensor's finite entries, and how many are not finite. Waits for a GPU."""
    values = entries(tensor)
    if values.dtype not in WIDE:
        values = values.float()
    return norm_from(sum_of_squares(values), values)


def norm_from(squares: float, values: Tensor) -> tuple[float, int]:
    """Return the norm of flat values whose squares sum up to ``squares`` in float32, read anew where that is unsafe."""
    if is_safe(squares, values.numel()):
        return math.sqrt(squares), 0
    finite = values.isfinite()
    exact = values[finite].double()
    peak = exact.abs().max().item() if len(exact) else 0.0
    norm = peak * torch.linalg.vector_norm(exact / peak).item() if peak else 0.0
    return norm, values.numel() - len(exact)


def is_safe(squares: float, size: int) -> bool:
    """Whether a sum of that many squares in float32 lost nothing that counts."""
    return SAFE_SQUARE * size < squares < math.inf
