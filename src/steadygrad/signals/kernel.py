"""Sums over float32 tensors in one pass, compiled by numba where that is installed (``steadygrad[fast]``).

Tensors are contiguous and of the CPU. A kernel runs in the calling thread and lets others run meanwhile. The first call
for one compiles it, or reads it from numba's cache, in about a second.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import CFUNCTYPE, PYFUNCTYPE, c_ssize_t, c_void_p
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = [
    "SquaresKernel",
    "StepsKernel",
    "callable_of",
    "kernel_pays",
    "squares_kernel",
    "steps_kernel",
]

_HUGE = 1 << 25  # entries times threads: beyond it a kernel, which has one thread, is slower than torch with several
_SUMS_MAY_CHANGE = {"reassoc", "contract"}  # their order, and NaN and inf keep their meaning: for ``fastmath``
Built = TypeVar("Built")
SquaresKernel = Callable[[Sequence[Tensor]], list[float]]
StepsKernel = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[list[float], list[float]]]


def kernel_pays(numel: int, least: int) -> bool:
    """Whether a kernel is faster for so many entries than torch, which reads with all its threads.

    Below ``least`` of them it is not worth being loaded.
    """
    threads = torch.get_num_threads()
    return numel > least and (threads == 1 or numel * threads < _HUGE)


@cache
def squares_kernel() -> SquaresKernel | None:
    """Return ``kernel(tensors)``, the float64 sum of squares of each; inf and NaN come through.

    Returns:
        None if numba is not installed or does not work.
    """
    return _first_that_works(_compile_squares)


@cache
def steps_kernel() -> StepsKernel | None:
    """Return ``kernel(tensors, copies)``, which brings each copy up to date with its tensor, laid out alike.

    It gives two float64 sums of squares of each, of finite entries alone: of what came to it since, and of the tensor.

    Returns:
        None if numba is not installed or does not work.
    """
    return _first_that_works(_compile_steps)


def _first_that_works(build: Callable[[Any, bool], Built]) -> Built | None:
    """Return ``build(numba, cached)``, else the same without a cache, else None.

    There may be no folder to write a cache to; broken installations raise more than ImportError.
    """
    for cached in (True, False):
        with suppress(Exception):
            return build(import_module("numba"), cached)
    return None


def callable_of(compiled: Any, *types: Any, returns: Any = None, alone: bool = False) -> Callable[..., Any]:
    """Return a function of arguments of some ``ctypes``, which runs a numba ``cfunc``, ``alone`` or beside others."""
    run = (PYFUNCTYPE if alone else CFUNCTYPE)(returns, *types)(compiled.address)
    run.keeps = compiled  # type: ignore[attr-defined]  # its machine code lives as long as it does
    return run


def _compile_squares(numba: Any, cached: bool) -> SquaresKernel:
    types = "void(CPointer(CPointer(float32)), CPointer(intp), CPointer(float64), intp)"

    @numba.cfunc(types, cache=cached, fastmath=_SUMS_MAY_CHANGE)  # type: ignore[untyped-decorator]
    def sum_squares(tensors: Any, counts: Any, sums: Any, number: int) -> None:
        for which in range(number):
            entries = numba.carray(tensors[which], counts[which])
            total = 0.0
            for i in range(len(entries)):
                total += numba.float64(entries[i]) * numba.float64(entries[i])
            sums[which] = total

    run = _on_arrays(sum_squares, pointers=3)

    def kernel(tensors: Sequence[Tensor]) -> list[float]:
        sums = array("d", bytes(8 * len(tensors)))
        run(len(tensors), _addresses(tensors), _counts(tensors), sums)
        return sums.tolist()

    return kernel


def _compile_steps(numba: Any, cached: bool) -> StepsKernel:
    types = (
        "void(CPointer(CPointer(float32)), CPointer(CPointer(float32)), CPointer(intp), "
        "CPointer(float64), CPointer(float64), intp)"
    )

    @numba.cfunc(types, cache=cached, fastmath=_SUMS_MAY_CHANGE)  # type: ignore[untyped-decorator]
    def sum_steps(tensors: Any, copies: Any, counts: Any, moved: Any, squares: Any, number: int) -> None:
        for which in range(number):
            entries, copy = numba.carray(tensors[which], counts[which]), numba.carray(copies[which], counts[which])
            steps = total = 0.0
            for i in range(len(entries)):
                entry = entries[i]
                step = entry - copy[i]
                copy[i] = entry
                moves = numba.float64(step) if abs(step) < math.inf else 0.0
                value = numba.float64(entry) if abs(entry) < math.inf else 0.0
                steps += moves * moves
                total += value * value
            moved[which], squares[which] = steps, total

    run = _on_arrays(sum_steps, pointers=5)

    def kernel(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> tuple[list[float], list[float]]:
        moved, squares = (array("d", bytes(8 * len(tensors))) for _ in range(2))
        run(len(tensors), _addresses(tensors), _addresses(copies), _counts(tensors), moved, squares)
        return moved.tolist(), squares.tolist()

    return kernel


def _on_arrays(compiled: Any, pointers: int) -> Callable[..., None]:
    """Return a function of a number and of so many arrays, of which the compiled one gets the addresses."""
    run = callable_of(compiled, *[c_void_p] * pointers, c_ssize_t)
    return lambda number, *arrays: run(*(each.buffer_info()[0] for each in arrays), number)


def _addresses(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", [tensor.data_ptr() for tensor in tensors])


def _counts(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", [tensor.numel() for tensor in tensors])
