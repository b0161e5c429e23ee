"""The sum of squares of float32 entries, compiled by numba where that is installed (``steadygrad[fast]``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["sum_of_squares_kernel"]

Kernel = Callable[[int, int], float]
_ROW = 256  # entries; a float32 sum of so many squares, in several lanes, errs by less than 1e-6


@cache
def sum_of_squares_kernel() -> Kernel | None:
    """Return ``kernel(address, count)``, which sums the squares of contiguous float32 entries.

    Sums over short rows, in float32, are combined in float64. It runs in the calling thread and lets others run
    meanwhile; inf and NaN come through. The first call of this function compiles it, or reads it from numba's cache, in
    about a second.

    Returns:
        None if numba is not installed or does not work.
    """
    for cached in (True, False):  # there may be no folder to write the cache to
        with suppress(Exception):  # broken installations raise more than ImportError
            return _compile(cached)
    return None


def _compile(cached: bool) -> Kernel:
    numba: Any = import_module("numba")

    single, double = numba.float32, numba.float64

    @numba.cfunc("float64(CPointer(float32), intp)", cache=cached, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
    def sum_of_squares(pointer: Any, count: int) -> float:
        # From four places at once, for which processors fetch ahead better than for one.
        entries = numba.carray(pointer, count)
        part = count // (4 * _ROW) * _ROW
        total = 0.0
        for start in range(0, part, _ROW):
            one, two = entries[start : start + _ROW], entries[part + start : part + start + _ROW]
            three, four = entries[2 * part + start :], entries[3 * part + start :]
            first = second = third = fourth = single(0)
            for i in range(_ROW):
                first += one[i] * one[i]
                second += two[i] * two[i]
                third += three[i] * three[i]
                fourth += four[i] * four[i]
            total += double(first) + double(second) + double(third) + double(fourth)
        for i in range(4 * part, count):
            total += double(entries[i]) * double(entries[i])
        return total

    kernel = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_ssize_t)(sum_of_squares.address)
    kernel.keeps = sum_of_squares  # type: ignore[attr-defined]  # its machine code lives as long as it does
    return kernel
