"""Samples of outputs and of their gradients on a CPU: taken while the network works, read when there is time.

A sample costs a fraction: every pass over an output costs as much as a good part of the layer's own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from steadygrad.monitor.norms import exact_norm
from steadygrad.monitor.output_stats import COLUMNS, OutputKind, dead_share, exact_stats

__all__ = ["Sample", "grad_stats", "sample_of", "sample_stats", "sampled", "spread"]

DEAD, NUMEL, SIGNAL = (COLUMNS.index(name) for name in ("dead_fraction", "output_numel", "output_signal"))
NAN = float("nan")
SAFE = (1e-12, 1e15)  # sums and squares of entries within are far from the ends of float32
# Below this share of the mean square the deviation over the batch drowns in the rounding of float32 sums.
DROWNED = 1e-3
# Entries of an output that are read, about, and how many are left of which dimension, from what is left out first on.
ENOUGH = 2**11
FEWEST = (0, 32), (-2, 8), (-1, 8), (0, 8), (-1, 2), (-2, 2), (-3, 32)
BLOCK = 2**16  # entries of samples that are read at once, and stay in the cache meanwhile


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


@lru_cache(maxsize=2**12)
def spread(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return which entries of an output are read: about ``ENOUGH``, spread over its dimensions.

    Entries of one sample of the batch are alike, as those of one unit are: a few of many of them tell more.
    """
    sizes, strides = list(shape), [1] * len(shape)
    for axis, fewest in FEWEST:
        if prod(sizes) <= ENOUGH:
            break
        if -axis < len(shape):
            stride = min(-(-prod(sizes) // ENOUGH), max(sizes[axis] // fewest, 1))
            sizes[axis] = -(-sizes[axis] // stride)
            strides[axis] *= stride
    return tuple(slice(None, None, stride) for stride in strides)


def sampled(values: np.ndarray) -> np.ndarray:
    """Return a copy of about ``ENOUGH`` of an array's entries, spread over its dimensions."""
    return values[spread(values.shape)].copy()


def sample_of(kind: OutputKind, values: np.ndarray) -> Sample:
    """Keep a sample of a float32 or float64 output of two dimensions or more."""
    return Sample(kind, sampled(values), len(values), values.size, dead_share(values) if kind.rectifier else NAN)


@np.errstate(all="ignore")
def sample_stats(samples: Sequence[Sample]) -> np.ndarray:
    """Return the statistics of outputs by their samples: a row each, in the order of ``COLUMNS``."""
    found = np.empty((len(samples), len(COLUMNS)))
    for places in _alike([(sample.kind, sample.values) for sample in samples]):
        found[places] = _stats_alike([samples[place] for place in places])
    for place in np.flatnonzero(~((found[:, 0] > SAFE[0]) & (found[:, 0] < SAFE[1]))).tolist():
        sample = samples[place]
        found[place] = exact_stats(sample.kind, torch.from_numpy(sample.values))
        found[place, [DEAD, NUMEL]] = sample.dead, sample.numel
    # So few samples of a batch deviate less from their own mean than from that of the batch.
    rows, batches = np.array([(len(sample.values), sample.batch) for sample in samples], dtype=float).reshape(-1, 2).T
    found[:, SIGNAL] *= np.sqrt((1 - 1 / batches) / (1 - 1 / rows))
    return found


@np.errstate(all="ignore")
def grad_stats(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Return a row each: the root mean square of its finite entries, how many are not finite, and NaN for float16's."""
    found = np.tile([0.0, 0.0, NAN], (len(samples), 1))
    for places in _alike([(None, values) for values in samples]):
        values = np.concatenate([samples[place] for place in places]).reshape(len(places), -1)
        found[places, 0] = np.sqrt(np.vecdot(values, values) / values.shape[1])
    for place in np.flatnonzero(~((found[:, 0] > SAFE[0]) & (found[:, 0] < SAFE[1]))).tolist():
        norm, bad = exact_norm(torch.from_numpy(samples[place]))
        found[place, :2] = norm / np.sqrt(max(samples[place].size - bad, 1)), bad
    return found


def _alike(samples: Sequence[tuple[OutputKind | None, np.ndarray]]) -> list[list[int]]:
    """Return the places of samples to be read together, as calls take most of the time: of one kind, shape and dtype.

    No more than what stays in the cache.
    """
    groups: dict[Any, list[int]] = {}
    for place, (kind, values) in enumerate(samples):
        groups.setdefault((kind, values.shape, values.dtype.char), []).append(place)
    blocks: list[list[int]] = []
    for (_, shape, _), places in groups.items():
        block = max(BLOCK // max(prod(shape), 1), 1)
        blocks += [places[start : start + block] for start in range(0, len(places), block)]
    return blocks


def _stats_alike(samples: Sequence[Sample]) -> np.ndarray:
    """Return the statistics of samples that are alike."""
    kind, (rows, *_) = samples[0].kind, samples[0].values.shape
    values = np.concatenate([sample.values for sample in samples]).reshape(len(samples), rows, -1)
    flat = values.reshape(len(samples), -1)
    size = flat.shape[1]
    numels, dead = np.array([(sample.numel, sample.dead) for sample in samples]).T
    squares, columns = _squares(values), values.sum(1)
    deviations = squares - _squares(columns[:, None]) / rows
    drowned = deviations < DROWNED * squares
    if drowned.any():
        deviations[drowned] = _squares(values[drowned] - columns[drowned, None] / rows)
    unknown = np.full(len(samples), NAN)
    return np.column_stack(  # in the order of COLUMNS
        [
            np.sqrt(squares / size),
            columns.sum(1, dtype=np.float64) / size,
            np.maximum(flat.max(1), -flat.min(1)),
            np.sqrt(np.maximum(deviations, 0.0) / size),
            _shares(flat == 0) if kind.activates else unknown,
            dead,
            _shares((flat <= kind.bounds[0]) | (flat >= kind.bounds[1])) if kind.bounds else unknown,
            np.zeros(len(samples)),
            numels,
        ]
    )


def _squares(values: np.ndarray) -> np.ndarray:
    """Return the sums of squares of matrices that lie one after the other."""
    sums: np.ndarray = np.vecdot(values, values).sum(1, dtype=np.float64)
    return sums


def _shares(flags: np.ndarray) -> np.ndarray:
    """Return which share of each row is true."""
    shares: np.ndarray = np.add.reduce(flags.view(np.uint8), 1, dtype=np.uint32) / flags.shape[1]
    return shares
