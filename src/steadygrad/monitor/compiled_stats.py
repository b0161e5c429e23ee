"""The statistics of outputs and of their gradients by compiled kernels: of the same samples, without copying them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from ctypes import c_double, c_void_p
from functools import cache, lru_cache
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from steadygrad.monitor.norms import readable
from steadygrad.monitor.output_stats import COLUMNS, OutputKind
from steadygrad.monitor.samples import spread
from steadygrad.signals.kernel import callable_of

__all__ = ["Plan", "Readers", "readers"]

STATS = len(COLUMNS)
NONFINITE = COLUMNS.index("output_nonfinite")


class Readers(NamedTuple):
    """What reads float32 tensors on a CPU; None where one has entries that are not finite, or lies in another way.

    Attributes:
        outputs: Gives the statistics of an output of two dimensions or more, in the order of ``COLUMNS``.
        grads: Gives the root mean square of an output's gradient.
    """

    outputs: Callable[[OutputKind, Tensor], list[float] | None]
    grads: Callable[[Tensor], float | None]


class Plan(NamedTuple):
    """How outputs of one kind, shape and layout are read.

    Attributes:
        arrays: What the kernels get. First ten numbers: samples of the batch that are read, entries of each, samples
            there are, entries of all, how far they reach, whether zeros and saturated entries count, lines of units in
            which to look for dead ones (0: none), units, and entries of each in a line. Then offsets of the entries
            that are read, bounds beyond which they are saturated, room for them as they are and as integers, and room
            for a flag a unit.
        addresses: Where they lie.
        columns: How many entries of a sample of the batch are read.
    """

    arrays: tuple[np.ndarray, ...]
    addresses: tuple[int, ...]
    columns: int


@cache
def readers() -> Readers | None:
    """Return what reads by compiled kernels; None if numba is not installed or does not work."""
    try:
        kernels = import_module("steadygrad.monitor.kernels")
    except Exception:  # broken installations raise more than ImportError
        return None
    return _readers(kernels.read_output, kernels.read_grad)


@lru_cache(maxsize=2**8)
def _plan(kind: OutputKind, shape: tuple[int, ...], strides: tuple[int, ...]) -> Plan:
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
    return Plan(arrays, tuple(each.ctypes.data for each in arrays), columns)


def _readers(read_output: Any, read_grad: Any) -> Readers:
    run_output = callable_of(read_output, *[c_void_p] * 8, alone=True)  # rooms are for one at a time
    run_grad = callable_of(read_grad, *[c_void_p] * 3, returns=c_double, alone=True)
    plain = OutputKind()

    def outputs(kind: OutputKind, tensor: Tensor) -> list[float] | None:
        if not readable(tensor) or (kind.rectifier and not tensor.is_contiguous()):
            return None
        plan = _plan(kind, tensor.shape, tensor.stride())
        found = array("d", [0.0]) * (STATS + plan.columns)
        run_output(tensor.data_ptr(), *plan.addresses, found.buffer_info()[0])
        return None if found[NONFINITE] else found[:STATS].tolist()

    def grads(tensor: Tensor) -> float | None:
        if not readable(tensor):
            return None
        rms = run_grad(tensor.data_ptr(), *_plan(plain, tensor.shape, tensor.stride()).addresses[:2])
        return rms if math.isfinite(rms) else None

    return Readers(outputs, grads)
