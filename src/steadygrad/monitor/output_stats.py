"""The statistics of one layer's output: exact ones, and the same by tensor operations alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import WIDE
from steadygrad.records import Role
from steadygrad.signals import batch_deviation, moments
from steadygrad.signals.layers import RECTIFIERS, SATURATION_BOUNDS, canonical, kind_of, role_of
from steadygrad.signals.moments import share_outside

__all__ = [
    "COLUMNS",
    "OutputKind",
    "as_array",
    "dead_share",
    "exact_stats",
    "output_stats_by_tensors",
]

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
LARGE = 2**16  # entries
FEW = 4  # samples of the batch, and positions in each, that show most units awake; without positions its square
MOST = 1 / 8  # share of units up to which it pays to look again at those alone that are not seen awake


class OutputKind(NamedTuple):
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
    def of(cls, module: nn.Module) -> OutputKind:
        """Return the kind of a module's outputs."""
        name = canonical(kind_of(module))
        activates = role_of(module) in (Role.ACTIVATION, Role.OTHER)
        return cls(activates, name in RECTIFIERS, SATURATION_BOUNDS.get(name))


def as_array(tensor: Tensor) -> np.ndarray | None:
    """Return a CPU tensor as it lies there, for NumPy to read; None for bfloat16, sparse, DTensor, a negated view."""
    if type(tensor) is not Tensor or tensor.dtype not in WIDE:
        return None
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except (RuntimeError, TypeError):
        return None


def dead_share(values: np.ndarray) -> float:
    """Return the share of units that are 0 for the whole batch: along the second dimension of images, else the last.

    Where a few entries of each show most units of a large output awake, only the others are looked for in all of it.
    """
    axis = 1 if values.ndim > 3 else -1
    units = values.shape[axis]
    if values.size > LARGE:
        asleep = np.flatnonzero(_peaks(values[_few(values.shape)]) == 0)
        if len(asleep) <= MOST * units:
            values = values.take(asleep, axis)
    if not values.size:
        return 0.0
    peaks = _peaks(values)
    return (len(peaks) - np.count_nonzero(peaks)) / units


@lru_cache(maxsize=2**12)
def _few(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where a few entries of each unit lie: some samples of the batch, some positions or lines in them."""
    if len(shape) == 2:
        return (slice(None, None, max(shape[0] // FEW**2, 1)),)
    thinned = (0, 2) if len(shape) > 3 else (0, 1)
    return tuple(slice(None, None, max(size // FEW, 1) if axis in thinned else 1) for axis, size in enumerate(shape))


def _peaks(values: np.ndarray) -> np.ndarray:
    """Return the largest entry of each unit."""
    if values.ndim > 3:
        values = values.reshape(*values.shape[:2], -1).max(2)
    elif values.ndim != 2:
        values = values.reshape(-1, values.shape[-1])
    peaks: np.ndarray = np.maximum.reduce(values, 0)
    return peaks


def exact_stats(kind: OutputKind, output: Tensor) -> list[float]:
    """Return the statistics of a detached output, in the order of ``COLUMNS``, whatever its entries and its dtype."""
    read, signal = moments(output), batch_deviation(output)
    return [
        read.rms,
        read.mean,
        read.abs_max,
        NAN if signal is None else signal,
        read.zero_fraction if kind.activates else NAN,
        dead_share(output.double().numpy()) if kind.rectifier and output.dim() else NAN,
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
