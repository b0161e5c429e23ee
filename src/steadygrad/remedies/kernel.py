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


@cache
def sum_of_squares_kernel() -> Kernel | None:
    """Return ``kernel(address, count)``, which sums the squares of contiguous float32 entries in float64.

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

    @numba.cfunc("float64(CPointer(float32), intp)", cache=cached, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
    def sum_of_squares(pointer: Any, count: int) -> float:
        # From four places at once, for which processors fetch ahead better than for one.
        entries = numba.carray(pointer, count)
        part = count // 4
        one, two, three, rest = (
            entries[:part],
            entries[part : 2 * part],
            entries[2 * part : 3 * part],
            entries[3 * part :],
        )
        first = second = third = last = 0.0
        for i in range(part):
            first += numba.float64(one[i]) * numba.float64(one[i])
            second += numba.float64(two[i]) * numba.float64(two[i])
            third += numba.float64(three[i]) * numba.float64(three[i])
            last += numba.float64(rest[i]) * numba.float64(rest[i])
        for i in range(part, len(rest)):
            last += numba.float64(rest[i]) * numba.float64(rest[i])
        return first + second + third + last

    kernel = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_ssize_t)(sum_of_squares.address)
    kernel.keeps = sum_of_squares  # type: ignore[attr-defined]  # its machine code lives as long as it does
    return kernel
