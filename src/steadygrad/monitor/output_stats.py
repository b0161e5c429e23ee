"""The statistics of one layer's output: of a sample on a CPU, and of all by tensor operations alone elsewhere.

A sample costs a fraction: on a CPU every pass over an output costs as much as a good part of the layer's own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

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
    "as_array",
    "exact_stats",
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
# Entries of an output that are read, about, and how many are left of which dimension, from what is left out first on.
ENOUGH = 2**11
FEWEST = (0, 32), (-2, 8), (-1, 8), (0, 8), (-1, 2), (-2, 2), (-3, 32)
BLOCK = 2**16  # entries of samples that are read at once, and stay in the cache meanwhile
SOME = 8  # samples of the batch that show most units of a large output awake
READ = ("squares", "deviations from the mean over the batch", "sum", "peak", "zeros", "saturated")


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
        kind: What counts in it.
        values: Samples of the batch, spread over it; of what is still too much, some positions, lines and units.
        batch: Samples that the output has.
        numel: Entries that the output has.
        dead: Share of a rectifier's units that are 0 for the whole batch.
    """

    kind: OutputKind
    values: np.ndarray
    batch: int
    numel: int
    dead: float = NAN


def as_array(tensor: Tensor) -> np.ndarray | None:
    """Return a CPU tensor as it lies there, for NumPy to read; None for bfloat16, sparse, DTensor, a negated view."""
    if type(tensor) is not Tensor or tensor.dtype not in WIDE:
        return None
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except (RuntimeError, TypeError):
        return None


def sampled(values: np.ndarray) -> np.ndarray:
    """Return a copy of about ``ENOUGH`` of an array's entries, spread over its dimensions.

    Entries of one sample of the batch are alike, as those of one unit are: a few of many of them tell more.
    """
    for axis, fewest in FEWEST:
        if values.size <= ENOUGH or values.ndim < 2:
            break
        if -axis < values.ndim:
            stride = min(-(-values.size // ENOUGH), max(values.shape[axis] // fewest, 1))
            values = values[(slice(None),) * (axis % values.ndim) + (slice(None, None, stride),)]
    return values.copy()


def sample_of(kind: OutputKind, values: np.ndarray) -> Sample:
    """Keep a sample of a float32 or float64 output of two dimensions or more."""
    return Sample(kind, sampled(values), len(values), values.size, _dead(values) if kind.rectifier else NAN)


@np.errstate(all="ignore")
def sample_stats(samples: Sequence[Sample]) -> np.ndarray:
    """Return the statistics of outputs by their samples: a row each, in the order of ``COLUMNS``.

    Samples of one shape are read together, and what they give is worked on together: calls take most of the time.
    """
    alike: dict[Any, list[int]] = {}
    for place, sample in enumerate(samples):
        alike.setdefault((sample.values.shape, sample.values.dtype), []).append(place)
    read = np.empty((len(samples), len(READ)))
    for places in alike.values():
        block = max(BLOCK // samples[places[0]].values.size, 1)
        for start in range(0, len(places), block):
            some = places[start : start + block]
            read[some] = _read_alike([samples[place] for place in some])
    squares, deviations, sums, peaks, zeros, outside = read.T
    rows, sizes, batches, numels, dead = np.array(
        [(len(sample.values), sample.values.size, sample.batch, sample.numel, sample.dead) for sample in samples]
    ).T
    rms = np.sqrt(squares / sizes)
    # So few samples of a batch deviate less from their own mean than from that of the batch.
    spread = np.maximum(deviations, 0.0) / sizes / np.where(rows > 1, 1 - 1 / rows, NAN)
    signal = np.sqrt(spread * (1 - 1 / batches))
    nonfinite = np.zeros(len(samples))
    found = np.column_stack([rms, sums / sizes, peaks, signal, zeros / sizes, dead, outside / sizes, nonfinite, numels])
    safe = (rms > SAFE[0]) & (rms < SAFE[1])
    if not safe.all():
        for place in np.flatnonzero(~safe).tolist():
            sample = samples[place]
            found[place] = exact_stats(sample.kind, torch.from_numpy(sample.values))
            found[place, [DEAD, NUMEL]] = sample.dead, sample.numel
    return found


def _read_alike(samples: Sequence[Sample]) -> np.ndarray:
    """Return what is ``READ`` of samples of one shape, a row each."""
    values = np.concatenate([sample.values for sample in samples])
    values = values.reshape(len(samples), len(samples[0].values), -1)
    rows, flat = values.shape[1], values.reshape(len(samples), -1)
    read = np.full((len(READ), len(samples)), NAN)
    read[0] = squares = _squares(values)
    columns = values.sum(1)
    read[1] = deviations = squares - _squares(columns[:, None]) / rows
    drowned = deviations < DROWNED * squares
    if drowned.any():
        read[1, drowned] = _squares(values[drowned] - columns[drowned, None] / rows)
    read[2] = columns.sum(1, dtype=np.float64)
    read[3] = np.maximum(flat.max(1), -flat.min(1))
    for place, sample in enumerate(samples):
        if sample.kind.activates:
            read[4, place] = np.count_nonzero(flat[place] == 0)
        if sample.kind.bounds:
            low, high = sample.kind.bounds
            read[5, place] = np.count_nonzero((flat[place] <= low) | (flat[place] >= high))
    return read.T


def _squares(values: np.ndarray) -> np.ndarray:
    """Return the sums of squares of matrices that lie one after the other."""
    sums: np.ndarray = np.vecdot(values, values).sum(1, dtype=np.float64)
    return sums


def _dead(values: np.ndarray) -> float:
    """Return the share of units that are 0 for the whole batch: along the second dimension of images, else the last.

    In large outputs only those are looked for that are 0 in some samples of the batch.
    """
    units = values.shape[1 if values.ndim > 3 else -1]
    if values.size > BLOCK:
        asleep = np.flatnonzero(_peaks(values[:: max(len(values) // SOME, 1)]) == 0)
        values = values[:, asleep] if values.ndim > 3 else values[..., asleep]
    return (values.size and np.count_nonzero(_peaks(values) == 0)) / units


def _peaks(values: np.ndarray) -> np.ndarray:
    """Return the largest entry of each unit."""
    if values.ndim > 3:
        values = values.reshape(*values.shape[:2], -1).max(2)
    elif values.ndim != 2:
        values = values.reshape(-1, values.shape[-1])
    peaks: np.ndarray = values.max(0)
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
        _dead(output.double().numpy()) if kind.rectifier and output.dim() else NAN,
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
