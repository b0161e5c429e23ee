"""Compiled code that reads samples of float32 outputs and gradients where they lie; it needs numba.

A plan, of int64, holds what :class:`steadygrad.monitor.compiled_stats.Plan` names; sums are float64.
"""

from __future__ import annotations

import math

from numba import carray, cfunc, float64, njit  # type: ignore[attr-defined]

from steadygrad.monitor.output_stats import COLUMNS

__all__ = ["read_grad", "read_output"]

DROWNED = 1e-6  # below this share of the mean square, deviations over the batch are read once more around their means
LINES = 8  # lines of units after which it is asked whether all are awake
MAGNITUDE, INFINITE = 0x7FFFFFFF, 0x7F800000  # bits of a float32 but for its sign; those of infinity, NaN's are more
PLAN = 10  # entries
STATS = len(COLUMNS)
RMS, MEAN, ABS_MAX, SIGNAL, ZERO, DEAD, SATURATED, NONFINITE, NUMEL = range(STATS)
# Sums may be reordered to use vector registers; NaN and infinity keep their meaning.
REORDERED = {"reassoc", "contract"}


@njit(cache=True, fastmath=REORDERED)
def _sums(sample, sums, rows):
    """Return the sum of squares, the sum, and the sum of squared deviations from the means of columns."""
    columns = len(sums)
    squares = total = shared = 0.0
    for row in range(rows):
        values = sample[row * columns : (row + 1) * columns]
        for column in range(columns):
            value = float64(values[column])
            sums[column] += value
            squares += value * value
    for column in range(columns):
        total += sums[column]
        shared += sums[column] * sums[column]
    deviations = squares - shared / rows
    if deviations < DROWNED * squares:
        deviations = 0.0
        for row in range(rows):
            values = sample[row * columns : (row + 1) * columns]
            for column in range(columns):
                deviation = float64(values[column]) - sums[column] / rows
                deviations += deviation * deviation
    return squares, total, deviations


@njit(cache=True)
def _dead_share(entries, awake, lines, inner):
    """Return the share of units that are 0 in all lines, each of which holds ``inner`` entries of all of them."""
    units = len(awake)
    awake[:] = 0
    count = 0
    for line in range(lines):
        values = entries[line * units * inner : (line + 1) * units * inner]
        if inner == 1:
            for unit in range(units):
                awake[unit] |= values[unit] != 0
        else:
            for unit in range(units):
                if not awake[unit]:
                    awake[unit] = (values[unit * inner : (unit + 1) * inner] != 0).any()
        if line % LINES == LINES - 1 or line == lines - 1:
            count = awake.sum()
            if count == units:
                break
    return 1.0 - count / units


@cfunc(
    "void(CPointer(float32), CPointer(int64), CPointer(uint64), CPointer(float32), CPointer(float32), CPointer(int32), "
    "CPointer(int32), CPointer(float64))",
    cache=True,
    fastmath=REORDERED,
)
def read_output(tensor, plan, places, limits, room, bits, flags, found):
    """Find the statistics of an output, in the order of ``output_stats.COLUMNS``.

    Args:
        tensor: The output.
        plan: How it is read.
        places: Offsets of the entries of its sample, a sample of the batch a row.
        limits: Entries at them or beyond are saturated.
        room: Gets the sample, and one entry more.
        bits: The same room as integers.
        flags: Room for one a unit.
        found: Gets what is found, and after it a sum a column of the sample, which must be 0.
    """
    rows, columns, batch, numel, extent, activates, bounded, lines, units, inner = carray(plan, PLAN)
    size = rows * columns
    entries, offsets, bounds = carray(tensor, extent), carray(places, size), carray(limits, 2)
    sample, integers = carray(room, size + 1), carray(bits, size + 1)
    results = carray(found, STATS + columns)
    for i in range(size):
        sample[i] = entries[offsets[i]]
    top = zeros = beyond = 0
    for i in range(size):
        magnitude = integers[i] & MAGNITUDE
        top = max(top, magnitude)
        zeros += magnitude == 0
    integers[size] = top
    if bounded:
        for i in range(size):
            beyond += (sample[i] <= bounds[0]) | (sample[i] >= bounds[1])
    squares, total, deviations = _sums(sample, results[STATS:], rows)
    results[RMS] = math.sqrt(squares / size)
    results[MEAN] = total / size
    results[ABS_MAX] = sample[size]
    # So few samples of a batch deviate less from their own mean than from that of the batch.
    results[SIGNAL] = math.sqrt(deviations / size / (1 - 1 / rows) * (1 - 1 / batch)) if rows > 1 else math.nan
    results[ZERO] = zeros / size if activates else math.nan
    results[DEAD] = _dead_share(entries, carray(flags, units), lines, inner) if lines else math.nan
    results[SATURATED] = beyond / size if bounded else math.nan
    results[NONFINITE] = top >= INFINITE
    results[NUMEL] = numel


@cfunc("float64(CPointer(float32), CPointer(int64), CPointer(uint64))", cache=True, fastmath=REORDERED)
def read_grad(tensor, plan, places):
    """Return the root mean square of a sample of a gradient; inf and NaN come through."""
    numbers = carray(plan, PLAN)
    size = numbers[0] * numbers[1]
    entries, offsets = carray(tensor, numbers[4]), carray(places, size)
    squares = 0.0
    for i in range(size):
        value = float64(entries[offsets[i]])
        squares += value * value
    return math.sqrt(squares / size)
