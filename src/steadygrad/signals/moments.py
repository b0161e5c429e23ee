"""Statistics of a tensor that are right at any scale.

A float32 norm reads 0 for entries of 1e-25 and inf for entries of 1e20. Here parts of a tensor are read while they lie
in the cache and combined in float64; where that is not exact, the tensor is scaled by its largest entry first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from steadygrad.records import Moments, Range

__all__ = ["batch_deviation", "moments", "range_of", "share_outside", "squared_distance", "sum_of_squares"]

CPU_PART, GPU_PART = 2**16, 2**24  # entries; a part and a copy of it fit into a core's cache
# Squares below float32's smallest normal number (1.2e-38) may be lost; beside a mean square of 1e-24 they are nothing.
SAFE_RMS = 1e-12
SAFE_PEAK = 1e15  # sums and differences of entries below stay far from overflow


def moments(tensor: Tensor, zeros: bool = True) -> Moments:
    """Return the moments of a floating tensor of any shape, dtype and layout.

    A sparse tensor counts its unstored entries as zeros; a complex entry counts as two, its real and imaginary part.

    Args:
        tensor: What to read.
        zeros: Whether to count zeros, which costs as much as half of the rest; ``zero_fraction`` is NaN if not.
    """
    stored = values = _dense(tensor)
    numel = tensor.numel() * (2 if tensor.is_complex() else 1)
    sums = _sums(values)
    if not math.isfinite(sums.peak):
        values = stored[stored.isfinite()]
        sums = _sums(values)
    count = numel - stored.numel() + values.numel()
    zero_fraction = (count - _count_nonzero(values)) / max(count, 1) if zeros else math.nan
    scale = 1.0
    if not (sums.norm > SAFE_RMS * math.sqrt(count) and math.isfinite(sums.norm + sums.total)) and sums.peak > 0.0:
        scale, sums = sums.peak, _sums(values.double() / sums.peak)
    return Moments(
        rms=scale * sums.norm / math.sqrt(max(count, 1)),
        mean=scale * sums.total / max(count, 1),
        abs_max=scale * sums.peak,
        zero_fraction=zero_fraction,
        nonfinite=numel - count,
        numel=numel,
    )


def sum_of_squares(tensor: Tensor) -> float:
    """Return the sum of squares of a tensor's finite entries, as a float64 number."""
    values = _dense(tensor)
    norm = _norm(values)
    if not math.isfinite(norm):
        norm = _norm(values[values.isfinite()])
    return norm * norm


def squared_distance(first: Tensor, second: Tensor) -> float:
    """Return the sum of squares of the finite entries of ``first - second``, dense tensors of one shape."""
    total = 0.0
    for one, other in zip(_parts(_dense(first)), _parts(_dense(second)), strict=True):
        norm = _norm(one - other)
        total += norm * norm if math.isfinite(norm) else sum_of_squares(one - other)
    return total


def batch_deviation(output: Tensor) -> float | None:
    """Return the RMS deviation of ``output`` of shape ``(batch, ...)`` from its mean over the batch.

    This is the part of a signal that tells one sample from another. Taken relative to the first sample, so that a
    deviation of 1e-7 around a mean of 0.5 survives float32.

    Returns:
        None if the batch has fewer than two samples or an entry is not finite.
    """
    if output.dim() == 0 or len(output) < 2 or not output.numel():
        return None
    deviation = _deviation(output)
    norm = _norm(deviation.reshape(-1))
    if math.isfinite(norm):
        return norm / math.sqrt(deviation.numel())
    # A difference of finite entries may overflow float32.
    return None if output.dtype == torch.float64 else batch_deviation(output.double())


def share_outside(tensor: Tensor, low: float, high: float) -> float:
    """Return the share of a tensor's entries that are ``low`` or less, or ``high`` or more."""
    values = _dense(tensor)
    below, above = torch.empty_like(values), torch.empty_like(values)
    torch.le(values, low, out=below)
    torch.ge(values, high, out=above)
    return below.add_(above).sum().item() / max(values.numel(), 1)


def range_of(tensor: Tensor) -> Range:
    """Return the range of a tensor of any dtype; NaN for all its numbers if no entry is finite."""
    values = _dense(tensor if tensor.is_floating_point() else tensor.double())
    low, high = _bounds(values)
    finite = values
    if not math.isfinite(high - low):
        finite = values[values.isfinite()]
        low, high = _bounds(finite)
    if not SAFE_RMS < max(-low, high) < SAFE_PEAK:
        finite = finite.double()
    mean = finite.mean()
    std = _norm(finite - mean) / math.sqrt(finite.numel()) if finite.numel() else math.nan
    return Range(
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        low=low,
        high=high,
        mean=mean.item(),
        std=std,
        nonfinite=values.numel() - finite.numel(),
        feature_std_ratio=_feature_std_ratio(tensor),
    )


def _feature_std_ratio(tensor: Tensor) -> float | None:
    if tensor.dim() != 2 or tensor.shape[1] < 2 or len(tensor) < 2 or tensor.layout != torch.strided:
        return None
    stds = _deviation(tensor).square_().mean(0).sqrt()
    stds = stds[stds.isfinite() & (stds > 0)]
    return (stds.max() / stds.min()).item() if len(stds) > 1 else None


def _deviation(tensor: Tensor) -> Tensor:
    """Return the deviation from the mean over dimension 0, in float32 or float64."""
    values = tensor.detach()
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    deviation = values - values[:1]
    deviation -= deviation.mean(0)
    return deviation


def _dense(tensor: Tensor) -> Tensor:
    """Return a tensor's stored entries, flat, real, in float32 or float64."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.reshape(-1)


def _bounds(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest entry; both NaN if an entry is, or if there is none."""
    if not values.numel():
        return math.nan, math.nan
    return values.amin().item(), values.amax().item()


def _peak(values: Tensor) -> float:
    """Return the largest magnitude, 0 without entries; nan or inf if an entry is."""
    low, high = _bounds(values) if values.numel() else (0.0, 0.0)
    return abs(max(-low, high))  # of zeros it is 0.0, never -0.0


class _Sums(NamedTuple):
    """Of flat values: largest magnitude, L2 norm and sum; not finite where an entry is not."""

    peak: float
    norm: float
    total: float


def _sums(values: Tensor) -> _Sums:
    peaks, squares, total = [0.0], 0.0, 0.0
    for part in _parts(values):
        peaks.append(_peak(part))
        squares += torch.dot(part, part).item()
        total += part.sum().item()
    return _Sums(math.nan if any(map(math.isnan, peaks)) else max(peaks), math.sqrt(squares), total)


def _count_nonzero(values: Tensor) -> float:
    # As 1.0 and 0.0 in the dtype of the values: many times faster than through booleans.
    return sum(torch.ne(part, 0.0, out=torch.empty_like(part)).sum().item() for part in _parts(values))


def _norm(values: Tensor) -> float:
    """Return the L2 norm of flat values; nan or inf if an entry is."""
    norm = math.sqrt(sum(torch.dot(part, part).item() for part in _parts(values)))
    if math.isfinite(norm) and norm > SAFE_RMS * math.sqrt(values.numel()):
        return norm
    peak = _peak(values)
    if peak == 0.0 or not math.isfinite(peak):
        return peak
    return peak * _norm(values.double() / peak)


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    return values.split(CPU_PART if values.is_cpu else GPU_PART)
