"""The statistics of one layer's output: exact ones on a CPU, and the same by tensor operations alone elsewhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import WIDE, flat, sum_of_squares
from steadygrad.monitor.one_pass import OnePass, one_pass
from steadygrad.monitor.scratch import PART, room
from steadygrad.records import Role
from steadygrad.signals import batch_deviation, moments
from steadygrad.signals.layers import RECTIFIERS, SATURATION_BOUNDS, canonical, kind_of, role_of
from steadygrad.signals.moments import share_outside

__all__ = ["COLUMNS", "OutputKind", "output_stats", "output_stats_by_tensors"]

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
# Below this share of the mean square the deviation over the batch drowns in the rounding of float32 sums.
DROWNED = 1e-3


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

    @functools.cached_property
    def limits(self) -> tuple[np.float32, np.float32]:
        """The bounds for the compiled pass."""
        low, high = self.bounds or (-math.inf, math.inf)
        return np.float32(low), np.float32(high)

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return the kind of a module's outputs."""
        name = canonical(kind_of(module))
        activates = role_of(module) in (Role.ACTIVATION, Role.OTHER)
        return cls(activates, name in RECTIFIERS, SATURATION_BOUNDS.get(name))


class Sums(NamedTuple):
    """What is summed over an output of shape ``(batch, *rest)``; not finite where an entry is not.

    Attributes:
        total: Sum.
        squares: Sum of squares.
        deviation: Sum of squares of the deviation from the mean over the batch.
        peak: Largest magnitude.
        nonzero: Entries other than 0, if they count.
        dead: Share of units that are 0 for the whole batch, if they count.
        outside: Entries beyond the bounds, if there are any.
    """

    total: float
    squares: float
    deviation: float
    peak: float
    nonzero: float = NAN
    dead: float = NAN
    outside: float = NAN


def output_stats(kind: OutputKind, output: Tensor) -> list[float]:
    """Return the statistics of a detached output on a CPU, in the order of ``COLUMNS``."""
    if output.dtype not in WIDE or output.dim() < 2:
        return _careful(kind, output)
    compiled = one_pass()
    if compiled is not None and output.dtype is torch.float32 and output.is_contiguous():
        sums = _compiled_sums(kind, output, compiled)
    else:
        sums = _read_sums(kind, output)
    size = output.numel()
    rms = (sums.squares / size) ** 0.5
    if not SAFE[0] < rms < SAFE[1]:
        return _careful(kind, output)
    return [
        rms,
        sums.total / size,
        sums.peak,
        (sums.deviation / size) ** 0.5 if len(output) > 1 else NAN,
        1.0 - sums.nonzero / size,
        sums.dead,
        sums.outside / size,
        0.0,
        size,
    ]


def _read_sums(kind: OutputKind, output: Tensor) -> Sums:
    """Read the sums of an output with two dimensions or more, by as few passes as will do."""
    values, columns = flat(output), output.sum(0)
    shared = flat(columns)
    squares, total = sum_of_squares(values), shared.sum().item()
    deviation = squares - sum_of_squares(shared) / len(output)
    if deviation < DROWNED * squares:
        deviation = _sum_over(torch.sub, output, columns / len(output))
    nonzero = dead = outside = NAN
    if kind.rectifier:
        peak, dead = values.amax().item(), _dead(columns)
    else:
        low, high = values.aminmax()
        peak = max(high.item(), -low.item())
    if kind.activates:
        nonzero = _sum_over(torch.sign, values)
    if kind.bounds:
        outside = _sum_over(torch.le, values, kind.bounds[0]) + _sum_over(torch.ge, values, kind.bounds[1])
    return Sums(total, squares, deviation, peak, nonzero, dead, outside)


def _compiled_sums(kind: OutputKind, output: Tensor, compiled: OnePass) -> Sums:
    """Read the same in one compiled pass."""
    columns = np.empty(output.shape[1:], np.float32)
    total, squares, deviation, peak, nonzero, outside = compiled.output_sums(
        output.view(-1).numpy(), len(output), *kind.limits, columns.reshape(-1)
    )
    return Sums(
        total,
        squares,
        max(deviation, 0.0),
        peak,
        nonzero if kind.activates else NAN,
        _dead(torch.from_numpy(columns)) if kind.rectifier else NAN,
        outside if kind.bounds else NAN,
    )


def _sum_over(function: Callable[..., Tensor], values: Tensor, *others: Any) -> float:
    """Return the sum of squares of a function of the entries, part by part in room that stays in the cache.

    Conditions give 1.0 and 0.0 in the dtype of the values: many times faster than through booleans.
    """
    rows = max(PART * len(values) // values.numel(), 1)
    total = 0.0
    for part in (values,) if rows >= len(values) else values.split(rows):
        found = room(part.numel(), part.dtype)
        function(part, *others, out=found.view(part.shape))
        total += sum_of_squares(found)
    return total


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
