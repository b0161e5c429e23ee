"""The statistics of one layer's output: exact ones on a CPU, and the same by tensor operations alone elsewhere."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import flat, sum_of_squares
from steadygrad.monitor.one_pass import OnePass, one_pass
from steadygrad.records import Role
from steadygrad.signals import batch_deviation, moments
from steadygrad.signals.layers import RECTIFIERS, SATURATION_BOUNDS, canonical, kind_of, role_of
from steadygrad.signals.moments import share_outside

__all__ = ["COLUMNS", "OutputKind", "Sums", "output_stats", "output_stats_by_tensors", "read_sums"]

COLUMNS = (
    "output_rms",
    "output_mean",
    "output_abs_max",
    "output_signal",
    "zero_fraction",
    "dead_fraction",
    "saturated_fraction",
    "output_nonfinite",
    "output_numel",
)
NAN = float("nan")
SAFE = (1e-12, 1e15)  # sums and squares of entries within are far from the ends of float32
PART = 2**16  # entries that lie in the cache together with a copy
# Below this share of the mean square the deviation over the batch drowns in the rounding of float32 sums.
DROWNED = 1e-3


class _Scratch(threading.local):
    """Room that stays in the cache; each thread has its own."""

    def __init__(self) -> None:
        self.room = {dtype: torch.empty(PART, dtype=dtype) for dtype in (torch.float32, torch.float64)}


_scratch = _Scratch()


@dataclass(frozen=True)
class OutputKind:
    """What counts in the outputs of a layer.

    Attributes:
        activates: Whether its zeros tell something.
        rectifier: Whether a unit that is 0 for a whole batch is dead.
        bounds: Outputs beyond are saturated; None if none are.
    """

    activates: bool = False
    rectifier: bool = False
    bounds: tuple[float, float] | None = None

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return the kind of a module's outputs."""
        name = canonical(kind_of(module))
        activates = role_of(module) in (Role.ACTIVATION, Role.OTHER)
        return cls(activates, name in RECTIFIERS, SATURATION_BOUNDS.get(name))


@dataclass
class Sums:
    """What is summed over an output of shape ``(batch, *rest)``; not finite where an entry is not.

    Attributes:
        squares: Sum of squares.
        deviation: Sum of squares of the deviation from the mean over the batch.
        columns: Sums over the batch, shape ``rest``.
        peak: Largest magnitude.
        nonzero: Entries other than 0, if they count.
        outside: Entries beyond the bounds, if there are any.
    """

    squares: float
    deviation: float
    columns: Tensor
    peak: float
    nonzero: float = NAN
    outside: float = NAN


def output_stats(kind: OutputKind, output: Tensor) -> list[float]:
    """Return the statistics of a detached output on a CPU, in the order of ``COLUMNS``."""
    size = output.numel()
    if output.dim() < 2 or output.dtype not in (torch.float32, torch.float64):
        return _careful(kind, output)
    compiled = one_pass()
    if compiled is not None and output.dtype == torch.float32 and output.is_contiguous():
        sums = _compiled_sums(kind, output, compiled)
    else:
        sums = read_sums(kind, output)
    rms = (sums.squares / size) ** 0.5
    if not SAFE[0] < rms < SAFE[1]:
        return _careful(kind, output)
    return [
        rms,
        sums.columns.sum().item() / size,
        sums.peak,
        (sums.deviation / size) ** 0.5 if len(output) > 1 else NAN,
        1.0 - sums.nonzero / size,
        _dead(sums.columns) if kind.rectifier else NAN,
        sums.outside / size,
        0.0,
        size,
    ]


def read_sums(kind: OutputKind, output: Tensor) -> Sums:
    """Read the sums of an output with two dimensions or more, by as few passes as will do."""
    values, batch = flat(output), len(output)
    squares, columns = sum_of_squares(values), output.sum(0)
    deviation = squares - sum_of_squares(flat(columns)) / batch
    if deviation < DROWNED * squares:
        deviation = _shifted_deviation(output)
    peak = values.amax().item()
    if not kind.rectifier:
        peak = max(peak, -values.amin().item())
    sums = Sums(squares, deviation, columns, peak)
    if kind.activates:
        sums.nonzero = _count(torch.ne, values, 0.0)
    if kind.bounds:
        sums.outside = _count(torch.le, values, kind.bounds[0]) + _count(torch.ge, values, kind.bounds[1])
    return sums


def _compiled_sums(kind: OutputKind, output: Tensor, compiled: OnePass) -> Sums:
    """Read the same in one compiled pass."""
    columns = torch.empty(output.shape[1:])
    low, high = kind.bounds or (-math.inf, math.inf)
    squares, deviation, peak, nonzero, outside = compiled.output_sums(
        output.view(-1).numpy(), len(output), np.float32(low), np.float32(high), columns.view(-1).numpy()
    )
    return Sums(
        squares, max(deviation, 0.0), columns, peak, nonzero if kind.activates else NAN, outside if kind.bounds else NAN
    )


def _shifted_deviation(output: Tensor) -> float:
    """Return the sum of squares of the deviation from the mean over the batch, relative to the first sample."""
    shifted = output - output[:1]
    deviation = sum_of_squares(flat(shifted)) - sum_of_squares(flat(shifted.sum(0))) / len(output)
    return max(deviation, 0.0)


def _count(condition: Callable[..., Tensor], values: Tensor, bound: float) -> float:
    """Count entries, as 1.0 and 0.0 in the dtype of the values: many times faster than through booleans."""
    room = _scratch.room[values.dtype]
    if values.numel() <= PART:
        return condition(values, bound, out=room[: values.numel()]).sum().item()
    return sum(condition(part, bound, out=room[: part.numel()]).sum().item() for part in values.split(PART))


def _dead(columns: Tensor) -> float:
    """Return the share of a rectifier's units whose sums are 0: along the first dimension of images, else the last."""
    if columns.dim() > 1:
        columns = columns.flatten(1).amax(1) if columns.dim() > 2 else columns.amax(0)
    return 1.0 - torch.count_nonzero(columns).item() / columns.numel()


def _careful(kind: OutputKind, output: Tensor) -> list[float]:
    """The same for an output with extreme or non-finite entries, or of few dimensions or bits."""
    read, signal = moments(output), batch_deviation(output)
    return [
        read.rms,
        read.mean,
        read.abs_max,
        NAN if signal is None else signal,
        read.zero_fraction if kind.activates else NAN,
        _dead(output.detach().abs().sum(0) if output.dim() > 1 else output.detach()) if kind.rectifier else NAN,
        share_outside(output, *kind.bounds) if kind.bounds else NAN,
        read.nonfinite,
        read.numel,
    ]


def output_stats_by_tensors(kind: OutputKind, output: Tensor) -> Tensor:
    """Return the same as a float64 tensor on the output's device, without waiting for it; also in compiled code."""
    finite = output.isfinite()
    values = torch.where(finite, output, 0.0).double()
    count = finite.sum().double().clamp(min=1.0)
    nothing = torch.full((), NAN, dtype=torch.float64, device=output.device)
    signal = saturated = dead = nothing
    if output.dim() > 0 and output.shape[0] > 1:
        shifted = values - values[:1]
        signal = (shifted - shifted.mean(0)).square().mean().sqrt()
    if kind.bounds:
        saturated = ((values <= kind.bounds[0]) | (values >= kind.bounds[1])).double().mean()
    if kind.rectifier:
        unit = 1 if output.dim() > 3 else output.dim() - 1
        others = [dimension for dimension in range(output.dim()) if dimension != unit]
        dead = 1.0 - ((output != 0).any(others) if others else output != 0).double().mean()
    return torch.stack(
        [
            (values.square().sum() / count).sqrt(),
            values.sum() / count,
            values.abs().amax(),
            signal,
            (output == 0).sum() / count if kind.activates else nothing,
            dead,
            saturated,
            output.numel() - finite.sum().double(),
            torch.full((), float(output.numel()), dtype=torch.float64, device=output.device),
        ]
    )
