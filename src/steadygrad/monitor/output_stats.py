"""The statistics of one layer's output: of a sample on a CPU, and of all by tensor operations alone elsewhere.

A sample costs a fraction: on a CPU every pass over an output costs as much as a good part of the layer's own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

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
    "Sample",
    "is_plain",
    "output_stats",
    "output_stats_by_tensors",
    "sample_of",
    "sample_stats",
    "sampled",
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
DEAD, NUMEL = COLUMNS.index("dead_fraction"), COLUMNS.index("output_numel")
NAN = float("nan")
SAFE = (1e-12, 1e15)  # sums and squares of entries within are far from the ends of float32
# Below this share of the mean square the deviation over the batch drowns in the rounding of float32 sums.
DROWNED = 1e-3
# Entries of an output that are read, and samples of the batch at least that they are taken from.
ENOUGH, FEWEST = 2**13, 8


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


class Sample(NamedTuple):
    """What is kept of an output until there is time to read it.

    Attributes:
        values: Samples of the batch, spread over it; of sequences and images, some of their positions or lines.
        batch: Samples that the output has.
        numel: Entries that the output has.
        dead: Share of a rectifier's units that are 0 for the whole batch.
    """

    values: np.ndarray
    batch: int
    numel: int
    dead: float = NAN


def is_plain(tensor: Tensor) -> bool:
    """Whether NumPy can read a detached CPU tensor as it lies there: no bfloat16, sparse, DTensor, negated view."""
    dense = tensor.layout is torch.strided and not tensor.is_neg()
    return type(tensor) is Tensor and tensor.dtype in WIDE and dense


def sampled(values: np.ndarray) -> np.ndarray:
    """Return a copy of at most about ``ENOUGH`` of an array's entries, of ``FEWEST`` samples at least."""
    if values.ndim > 1 and values.size > ENOUGH:
        values = values[:: min(-(-values.size // ENOUGH), max(len(values) // FEWEST, 1))]
        if values.ndim > 2 and values.size > ENOUGH:
            values = values[..., :: min(-(-values.size // ENOUGH), values.shape[-2]), :]
    return values.copy()


def sample_of(kind: OutputKind, output: Tensor) -> Sample:
    """Keep a sample of a detached float32 or float64 output on a CPU, of two dimensions or more."""
    values = output.numpy()
    return Sample(sampled(values), len(values), values.size, _dead(values) if kind.rectifier else NAN)


def output_stats(kind: OutputKind, output: Tensor) -> list[float]:
    """Return the statistics of a detached output on a CPU, in the order of ``COLUMNS``."""
    if is_plain(output) and output.dim() > 1:
        return sample_stats(kind, [sample_of(kind, output)])[0]
    return _careful(kind, output)


@np.errstate(all="ignore")
def sample_stats(kind: OutputKind, samples: Sequence[Sample]) -> list[list[float]]:
    """Return the statistics of outputs by samples of one shape, in the order of ``COLUMNS``."""
    values = np.stack([sample.values for sample in samples]).reshape(len(samples), len(samples[0].values), -1)
    rows, size = values.shape[1], values[0].size
    squares = _squares(values)
    rms = np.sqrt(squares / size)
    columns = values.sum(1)
    deviation = squares - _squares(columns[:, None]) / rows
    drowned = deviation < DROWNED * squares
    if drowned.any():
        deviation[drowned] = _squares(values[drowned] - columns[drowned, None] / rows)
    batches = np.array([sample.batch for sample in samples])
    signal = np.sqrt(np.maximum(deviation, 0.0) / size * (1 - 1 / batches) / (1 - 1 / rows if rows > 1 else NAN))
    means = columns.sum(1, dtype=np.float64) / size
    flat = values.reshape(len(values), -1)
    peaks = np.maximum(flat.max(1), -flat.min(1))
    zeros, outside = np.full((2, len(values)), NAN)
    if kind.activates:
        zeros = np.array([np.count_nonzero(mask) for mask in flat == 0]) / size
    if kind.bounds:
        beyond = (flat <= kind.bounds[0]) | (flat >= kind.bounds[1])
        outside = np.array([np.count_nonzero(mask) for mask in beyond]) / size
    found = []
    for index, sample in enumerate(samples):
        if SAFE[0] < rms[index] < SAFE[1]:
            stats = [*(column[index] for column in (rms, means, peaks, signal, zeros)), NAN, outside[index], 0.0, NAN]
        else:
            stats = _careful(kind, torch.from_numpy(sample.values))
        stats[DEAD], stats[NUMEL] = sample.dead, sample.numel
        found.append(stats)
    return found


def _squares(values: np.ndarray) -> np.ndarray:
    """Return the sums of squares of matrices that lie one after the other."""
    sums: np.ndarray = np.vecdot(values, values).sum(1, dtype=np.float64)
    return sums


@np.errstate(all="ignore")
def _dead(values: np.ndarray) -> float:
    """Return the share of units that are 0 for the whole batch: along the second dimension of images, else the last."""
    if values.ndim > 3:
        peaks = values.reshape(*values.shape[:2], -1).max(2).max(0)
    else:
        peaks = values.reshape(-1, values.shape[-1]).max(0)
    return 1.0 - np.count_nonzero(peaks) / peaks.size


def _careful(kind: OutputKind, output: Tensor) -> list[float]:
    """The same for an output with extreme or non-finite entries, or of few dimensions or bits."""
    read, signal = moments(output), batch_deviation(output)
    return [
        read.rms,
        read.mean,
        read.abs_max,
        NAN if signal is None else signal,
        read.zero_fraction if kind.activates else NAN,
        _dead(output.double().numpy()) if kind.rectifier else NAN,
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
