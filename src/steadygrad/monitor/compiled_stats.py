"""The statistics of outputs and of their gradients by compiled kernels: of the same samples, without copying them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from ctypes import c_double, c_void_p
from functools import cache, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from steadygrad.monitor.output_stats import COLUMNS, OutputKind
from steadygrad.monitor.samples import spread
from steadygrad.signals.kernel import SUMS_MAY_CHANGE, callable_of, first_that_works

__all__ = ["Readers", "readers"]

STATS = len(COLUMNS)
NONFINITE = COLUMNS.index("output_nonfinite")
DROWNED = 1e-6  # below this share of the mean square, deviations over the batch are read once more around their means
LINES = 8  # lines of units after which it is asked whether all are awake
MAGNITUDE, INFINITE = 0x7FFFFFFF, 0x7F800000  # bits of a float32 but for its sign; those of infinity, NaN's are more


class Readers(NamedTuple):
    """What reads float32 tensors on a CPU; None where one has entries that are not finite, or lies in another way.

    Attributes:
        outputs: Gives the statistics of an output of two dimensions or more, in the order of ``COLUMNS``.
        grads: Gives the root mean square of an output's gradient.
    """

    outputs: Callable[[OutputKind, Tensor], list[float] | None]
    grads: Callable[[Tensor], float | None]


class _Plan(NamedTuple):
    """How outputs of one kind, shape and layout are read.

    Attributes:
        arrays: What the kernels get: ``numbers``, offsets of the entries that are read, bounds beyond which a unit is
            saturated, room for these entries as they are and as integers, and room for a flag a unit.
        addresses: Where they lie.
        columns: How many entries of a sample of the batch are read.
    """

    arrays: tuple[np.ndarray, ...]
    addresses: tuple[int, ...]
    columns: int


@cache
def readers() -> Readers | None:
    """Return what reads by compiled kernels; None if numba is not installed or does not work."""
    return first_that_works(_compile)


@lru_cache(maxsize=2**10)
def _plan(kind: OutputKind, shape: tuple[int, ...], strides: tuple[int, ...]) -> _Plan:
    kept = [range(size)[part] for size, part in zip(shape, spread(shape), strict=True)]
    offsets = np.zeros((), dtype=np.int64)
    for places, stride in zip(kept, strides, strict=True):
        offsets = offsets[..., None] + np.asarray(places) * stride
    rows, columns, numel = len(kept[0]), offsets.size // len(kept[0]), prod(shape)
    units, inner = (shape[1], prod(shape[2:])) if len(shape) > 3 else (shape[-1], 1)
    lines = numel // (units * inner) if kind.rectifier else 0
    extent = max(int(offsets.max()) + 1, numel if lines else 0)
    numbers = [rows, columns, shape[0], numel, extent, kind.activates, kind.bounds is not None, lines, units, inner]
    room = np.zeros(offsets.size + 1, dtype=np.float32)
    arrays = (
        np.array(numbers, dtype=np.int64),
        offsets.ravel().astype(np.uint64),
        np.array(kind.bounds or (0.0, 0.0), dtype=np.float32),
        room,
        room.view(np.int32),
        np.zeros(units, dtype=np.int32),
    )
    return _Plan(arrays, tuple(each.ctypes.data for each in arrays), columns)


def _compile(numba: Any, cached: bool) -> Readers:
    run_output = callable_of(_output_kernel(numba, cached), *[c_void_p] * 8, alone=True)  # rooms are for one at a time
    run_grad = callable_of(_grad_kernel(numba, cached), *[c_void_p] * 3, returns=c_double, alone=True)
    plain = OutputKind()

    def outputs(kind: OutputKind, tensor: Tensor) -> list[float] | None:
        if not _readable(tensor) or (kind.rectifier and not tensor.is_contiguous()):
            return None
        plan = _plan(kind, tensor.shape, tensor.stride())
        found = array("d", [0.0]) * (STATS + plan.columns)
        run_output(tensor.data_ptr(), *plan.addresses, found.buffer_info()[0])
        return None if found[NONFINITE] else found[:STATS].tolist()

    def grads(tensor: Tensor) -> float | None:
        if not _readable(tensor):
            return None
        rms = run_grad(tensor.data_ptr(), *_plan(plain, tensor.shape, tensor.stride()).addresses[:2])
        return rms if math.isfinite(rms) else None

    return Readers(outputs, grads)


def _output_kernel(numba: Any, cached: bool) -> Any:
    float64, carray, dead_share = numba.float64, numba.carray, _dead_share(numba, cached)
    types = (
        "void(CPointer(float32), CPointer(int64), CPointer(uint64), CPointer(float32), CPointer(float32), "
        "CPointer(int32), CPointer(int32), CPointer(float64))"
    )

    @numba.cfunc(types, cache=cached, fastmath=SUMS_MAY_CHANGE)  # type: ignore[untyped-decorator]
    def read(tensor: Any, plan: Any, places: Any, limits: Any, room: Any, bits: Any, flags: Any, found: Any) -> None:
        rows, columns, batch, numel, extent, activates, bounded, lines, units, inner = carray(plan, 10)
        size = rows * columns
        entries, offsets, bounds = carray(tensor, extent), carray(places, size), carray(limits, 2)
        sample, integers = carray(room, size + 1), carray(bits, size + 1)
        results = carray(found, STATS + columns)
        sums = results[STATS:]
        top = zeros = beyond = 0
        for i in range(size):
            sample[i] = entries[offsets[i]]
        for i in range(size):
            magnitude = integers[i] & MAGNITUDE
            top = max(top, magnitude)
            zeros += magnitude == 0
        integers[size] = top
        if bounded:
            for i in range(size):
                beyond += (sample[i] <= bounds[0]) | (sample[i] >= bounds[1])
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
        results[0] = math.sqrt(squares / size)
        results[1] = total / size
        results[2] = sample[size]
        # So few samples of a batch deviate less from their own mean than from that of the batch.
        results[3] = math.sqrt(deviations / size / (1 - 1 / rows) * (1 - 1 / batch)) if rows > 1 else math.nan
        results[4] = zeros / size if activates else math.nan
        results[5] = dead_share(entries, carray(flags, units), lines, inner) if lines else math.nan
        results[6] = beyond / size if bounded else math.nan
        results[7] = top >= INFINITE
        results[8] = numel

    return read


def _dead_share(numba: Any, cached: bool) -> Any:
    @numba.njit(cache=cached)  # type: ignore[untyped-decorator]
    def dead_share(entries: Any, awake: Any, lines: int, inner: int) -> float:
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

    return dead_share


def _grad_kernel(numba: Any, cached: bool) -> Any:
    float64, carray = numba.float64, numba.carray
    types = "float64(CPointer(float32), CPointer(int64), CPointer(uint64))"

    @numba.cfunc(types, cache=cached, fastmath=SUMS_MAY_CHANGE)  # type: ignore[untyped-decorator]
    def read(tensor: Any, plan: Any, places: Any) -> float:
        numbers = carray(plan, 5)
        size = numbers[0] * numbers[1]
        entries, offsets = carray(tensor, numbers[4]), carray(places, size)
        squares = 0.0
        for i in range(size):
            value = float64(entries[offsets[i]])
            squares += value * value
        return math.sqrt(squares / size)

    return read


def _readable(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.dtype is torch.float32
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    )
