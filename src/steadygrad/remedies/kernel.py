"""The sums of squares of float32 tensors, compiled by numba where that is installed (``steadygrad[fast]``)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import CFUNCTYPE, c_ssize_t, c_void_p
from functools import cache
from importlib import import_module
from typing import Any

from torch import Tensor

__all__ = ["Kernel", "squares_kernel"]

_BURST, _PLACES = 1 << 10, 4
Kernel = Callable[[Sequence[Tensor]], list[float]]


@cache
def squares_kernel() -> Kernel | None:
    """Return ``kernel(tensors)``, the float64 sum of squares of each of some contiguous float32 tensors of the CPU.

    It runs in the calling thread and lets others run meanwhile; inf and NaN come through. The first call of this
    function compiles it, or reads it from numba's cache, in about a second.

    Returns:
        None if numba is not installed or does not work.
    """
    for cached in (True, False):  # there may be no folder to write the cache to
        with suppress(Exception):  # broken installations raise more than ImportError
            return _compile(cached)
    return None


def _compile(cached: bool) -> Kernel:
    numba: Any = import_module("numba")
    types = "void(CPointer(CPointer(float32)), CPointer(intp), CPointer(float64), intp)"

    @numba.cfunc(types, cache=cached, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
    def sum_squares(tensors: Any, counts: Any, sums: Any, number: int) -> None:
        for which in range(number):
            # Bursts from four places in turn: caches and memory deliver these faster than one row of entries.
            entries = numba.carray(tensors[which], counts[which])
            part = len(entries) // (_PLACES * _BURST) * _BURST
            total = 0.0
            for turn in range(part // _BURST * _PLACES):
                start = turn % _PLACES * part + turn // _PLACES * _BURST
                burst = entries[start : start + _BURST]
                for i in range(len(burst)):
                    total += numba.float64(burst[i]) * numba.float64(burst[i])
            rest = entries[_PLACES * part :]
            for i in range(len(rest)):
                total += numba.float64(rest[i]) * numba.float64(rest[i])
            sums[which] = total

    compiled = CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_ssize_t)(sum_squares.address)
    compiled.keeps = sum_squares  # type: ignore[attr-defined]  # its machine code lives as long as it does

    def kernel(tensors: Sequence[Tensor]) -> list[float]:
        addresses = array("q", [tensor.data_ptr() for tensor in tensors])
        counts = array("q", [tensor.numel() for tensor in tensors])
        sums = array("d", bytes(8 * len(tensors)))
        compiled(*(numbers.buffer_info()[0] for numbers in (addresses, counts, sums)), len(tensors))
        return sums.tolist()

    return kernel
