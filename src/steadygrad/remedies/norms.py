"""L2 norms of gradients, right where float32 norms are not, at the cost of one read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from steadygrad.signals.kernel import kernel_pays, squares_kernel
from steadygrad.signals.moments import sum_of_squares

__all__ = ["HALF", "entries", "global_norm", "norms_of", "peaks_of", "unit_norms"]

_ROW = 1 << 10  # entries; a float32 norm over so many errs by less than 1e-6, over 4e7 by 3e-3
_LARGE = 1 << 20  # entries: a set worth loading the compiled kernel
# Squares below float32's smallest normal number (1.2e-38) may be lost; beside a mean square of 1e-24 they are nothing.
_SAFE_MEAN_SQUARE = 1e-24
_SQUARES_FIT = (1e-140, 1e140)  # float64 squares of entries in this range neither vanish nor overflow
HALF = (torch.float16, torch.bfloat16)


def global_norm(tensors: Iterable[Tensor]) -> float:
    """Return the L2 norm of all entries of all tensors, dense or sparse, of any floating dtype.

    Relative error below 1e-6 at any size of entries and of tensors; torch's float32 norm reads 0 below 1e-23 and inf
    above 1e19, its float16 norm inf above 65504. NaN or inf if an entry is.

    Example:
        >>> global_norm([torch.full((300,), 1e20), torch.tensor([0.0])])
        1.73...e+21
    """
    return math.hypot(*norms_of([entries(tensor.detach()) for tensor in tensors]))


def entries(tensor: Tensor) -> Tensor:
    """Return a view of the stored entries, real: what changes it in place changes ``tensor`` (if that is coalesced)."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce().values()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def norms_of(tensors: Sequence[Tensor]) -> list[float]:
    """Return the L2 norm of each of some dense, real tensors; NaN or inf if an entry is.

    Sums over short rows are combined in float64. Where a sum of squares is zero, tiny or not finite, the tensor is
    scaled by its largest entry and read again. Large sets of float32 tensors are read by a compiled kernel if there is
    one, which sums in float64 throughout.
    """
    norms = [0.0] * len(tensors)
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(i)
    for (_, dtype), where in kinds.items():
        for i, norm in zip(where, _norms_alike([tensors[i] for i in where], dtype), strict=True):
            norms[i] = norm
    return norms


def _norms_alike(tensors: list[Tensor], dtype: torch.dtype) -> list[float]:
    """Return the norms of some tensors of one device and dtype."""
    if tensors[0].is_cpu:
        reads = dtype is torch.float32 and kernel_pays(sum(tensor.numel() for tensor in tensors), least=_LARGE)
        if reads and (kernel := squares_kernel()) is not None:
            return [math.sqrt(squares) for squares in kernel([t if t.is_contiguous() else _flat(t) for t in tensors])]
        norms = _norms_by_rows(tensors)
    else:  # accelerators sum in a tree, exactly enough
        norms = _norms_in_one_call(tensors, torch.float32 if dtype in HALF else dtype)
    return [_checked(norm, tensor) for norm, tensor in zip(norms, tensors, strict=True)]


def _norms_by_rows(tensors: list[Tensor]) -> list[float]:
    """Return the norms of some tensors of one dtype, from those of rows of them."""
    parts: list[Tensor] = []  # short tensors, and the norms of the rows of long ones
    owners: list[int] = []
    for i, tensor in enumerate(tensors):
        numel = tensor.numel()
        if numel > _ROW:
            tensor, length = _flat(tensor), _row_length(numel)
            if rest := numel % length:
                parts.append(tensor[-rest:])
                owners.append(i)
                tensor = tensor[:-rest]
            wide = torch.float32 if tensor.dtype in HALF else None
            tensor = torch.linalg.vector_norm(tensor.view(-1, length), dim=1, dtype=wide)
        parts.append(tensor)
        owners.append(i)
    norms = [0.0] * len(tensors)
    for i, norm in zip(owners, _norms_in_one_call(parts, torch.float64), strict=True):
        norms[i] = math.hypot(norms[i], norm)
    return norms


@lru_cache(1 << 12)
def _row_length(numel: int) -> int:
    """Return a length that leaves no rest, if a good one does: a rest costs a call of its own."""
    return next((length for length in range(_ROW, _ROW // 4, -64) if numel % length == 0), _ROW)


def _norms_in_one_call(tensors: list[Tensor], dtype: torch.dtype) -> list[float]:
    """Return the norms of tensors of one device, in one transfer."""
    return torch.stack(torch._foreach_norm(tensors, 2, dtype)).tolist() if tensors else []


def _checked(norm: float, tensor: Tensor) -> float:
    """Return ``norm``, or the exact one where squares may have vanished or overflowed."""
    return norm if tensor.numel() * _SAFE_MEAN_SQUARE < norm * norm < math.inf else _exact_norm(tensor)


def _exact_norm(tensor: Tensor) -> float:
    peak = _peak(tensor)
    if peak == 0 or not math.isfinite(peak):
        return peak
    scale = 1.0 if _SQUARES_FIT[0] < peak < _SQUARES_FIT[1] else peak
    return scale * math.sqrt(sum_of_squares(tensor if scale == 1 else tensor / scale))


def peaks_of(tensors: Sequence[Tensor]) -> list[float]:
    """Return the largest magnitude in each of some dense, real tensors; NaN or inf if an entry is."""
    return [_peak(tensor) for tensor in tensors]


def _peak(tensor: Tensor) -> float:
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor)  # many times faster than the infinity norm, and it keeps NaN
    return max(-low.item(), high.item())


def unit_norms(weight: Tensor) -> Tensor:
    """Return the L2 norm of each output unit's incoming weights; of a tensor of one dimension or none, its one norm.

    A unit is one slice along dimension 0, which fits linear and convolution weights alike.

    Args:
        weight: Shape ``(units, *fan)``, ``(n,)`` or ``()``, any real floating dtype.

    Returns:
        Shape ``(units,)`` or ``(1,)``; float32 for half precision, else the dtype of ``weight``. A unit whose squares
        overflow reads inf.

    Example:
        >>> unit_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([5., 2.])

    Reference:
        Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, 2021, sec. 4.
        https://arxiv.org/abs/2102.06171
    """
    dtype = torch.float32 if weight.dtype in HALF else None
    if weight.dim() < 2:
        return torch.linalg.vector_norm(weight, dtype=dtype).reshape(1)
    return torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=dtype)


def _flat(tensor: Tensor) -> Tensor:
    """Return all entries in one dimension, in the order of memory: no copy where it has no gaps, as channels_last."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).reshape(-1).contiguous()
