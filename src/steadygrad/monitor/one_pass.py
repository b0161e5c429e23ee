"""Sums in one pass over the memory, compiled by numba where it is installed: the twins of what torch does in several.

The functions are plain Python on NumPy arrays, so that they can be read and tested as such. Sums run in float32 over
short stretches and are added in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["OnePass", "adam_sums", "one_pass", "output_sums"]

STRETCH = 2048  # entries
MAGNITUDE = np.int32(0x7FFFFFFF)  # the bits of a float32 but its sign, which stand in order of magnitude
NONE, ONE = np.float32(0.0), np.float32(1.0)
# Torch shares a pass among its threads; one core keeps up with few of them.
MOST_THREADS = 4


class OnePass(NamedTuple):
    """The compiled functions."""

    output_sums: Callable[..., Any]
    adam_sums: Callable[..., Any]


def one_pass() -> OnePass | None:
    """Return the compiled functions; None without numba, or where torch's own threads are faster."""
    return _compiled() if torch.get_num_threads() <= MOST_THREADS else None


@functools.cache
def _compiled() -> OnePass | None:
    try:
        from numba import njit
    except ImportError:
        return None
    # Sums may be taken in any order; whether they are finite is asked of the results, outside.
    compiled = njit(fastmath=True, error_model="numpy", cache=True)
    return OnePass(compiled(output_sums), compiled(adam_sums))


def output_sums(
    values: np.ndarray, rows: int, low: float, high: float, columns: np.ndarray
) -> tuple[float, float, float, float, float, float]:
    """Read ``rows`` samples that lie one after the other, and write their sum into ``columns``.

    Returns:
        Sum, sum of squares, sum of squared deviations from the mean over samples, the largest magnitude, the number of
        entries other than 0, and of those not between ``low`` and ``high``.
    """
    width = columns.size
    total: Any = 0.0
    squares: Any = 0.0
    deviations: Any = 0.0
    nonzero: Any = 0.0
    outside: Any = 0.0
    peak = np.zeros(1, np.int32)
    for start in range(0, width, STRETCH):
        column = columns[start : start + STRETCH]
        first = values[start : start + column.size]
        column[:] = NONE
        for row in range(rows):
            part = values[row * width + start : row * width + start + column.size]
            bits = part.view(np.int32)
            square, deviation, count, beyond, largest = NONE, NONE, NONE, NONE, np.int32(0)
            for k in range(part.size):
                value = part[k]
                shifted = value - first[k]  # so that what samples have in common does not drown their difference
                column[k] += shifted
                deviation += shifted * shifted
                square += value * value
                largest = max(largest, bits[k] & MAGNITUDE)
                count += ONE if value != NONE else NONE
                beyond += ONE if (value <= low or value >= high) else NONE
            squares += square
            deviations += deviation
            nonzero += count
            outside += beyond
            peak[0] = max(peak[0], largest)
        shared, added = NONE, NONE
        for k in range(column.size):
            shared += column[k] * column[k]
            column[k] += np.float32(rows) * first[k]
            added += column[k]
        deviations -= np.float64(shared) / rows
        total += added
    return total, squares, deviations, float(peak.view(np.float32)[0]), nonzero, outside


def adam_sums(
    new: np.ndarray, mean: np.ndarray, square: np.ndarray, rate: float, root_scale: float, eps: float, decay: float
) -> tuple[float, float]:
    """Return the sums of squares of ``new + step`` and of ``step + decay * (new + step)``, with Adam's step.

    ``step = rate * mean / (root_scale * sqrt(square) + eps)``.
    """
    weights: Any = 0.0
    moved: Any = 0.0
    for start in range(0, new.size, STRETCH):
        news, means, roots = (
            new[start : start + STRETCH],
            mean[start : start + STRETCH],
            square[start : start + STRETCH],
        )
        old_part, step_part = NONE, NONE
        for k in range(news.size):
            step = rate * means[k] / (np.sqrt(roots[k]) * root_scale + eps)
            old = news[k] + step
            step += decay * old
            old_part += old * old
            step_part += step * step
        weights += old_part
        moved += step_part
    return weights, moved
