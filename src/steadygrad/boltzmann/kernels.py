"""Fused loops over Bernoulli units for the processor, compiled by numba where ``steadygrad[fast]`` is installed.

Torch needs five passes over memory to draw a layer's states, and a scalar generator for the random numbers. Here one
pass does the sigmoid, a counter-based random number and the comparison, in vector registers. Everything here has a twin
in torch, which runs where numba is missing; the two draw other random numbers from the same seed.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

__all__ = ["column_mean", "draw_", "sandwich", "step_"]

_KEYS = 2**31 - 1
_LOG2E = np.float32(1.4426950408889634)
# Taylor coefficients of 2^f on [-0.5, 0.5]: relative error below 2e-7.
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(np.log(2.0) ** n / f) for n, f in ((1, 1), (2, 2), (3, 6), (4, 24), (5, 120), (6, 720))
)
_ONE, _HALF, _STEP = np.float32(1.0), np.float32(0.5), np.float32(2.0**-24)
_LOWEST = np.float32(-126.0)  # exponents of 2 that float32 holds
_BRAIN_ONE = np.int16(0x3F80)  # 1 in bfloat16


@njit(inline="always", fastmath=True)
def _sigmoid(x: np.float32) -> np.float32:
    t = min(max(-x * _LOG2E, _LOWEST), -_LOWEST)
    whole = np.int32(np.floor(t + _HALF))
    f = t - np.float32(whole)
    power = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    return _ONE / (_ONE + power * np.int32((whole + 127) << 23).view(np.float32))


@njit(inline="always")
def _mix(x: np.uint32) -> np.uint32:
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x85EBCA6B))
    x = np.uint32(x ^ (x >> np.uint32(13)))
    x = np.uint32(x * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(inline="always")
def _uniform(number: int, first: np.uint32, second: np.uint32) -> np.float32:
    """Return a number in (0, 1): the finalizer of MurmurHash3, twice, with a key in between."""
    bits = _mix(np.uint32(_mix(np.uint32(np.uint32(number) + first)) ^ second))
    return (np.float32(np.int32(bits >> np.uint32(8))) + _HALF) * _STEP


@njit(inline="always")
def _widen(bits: np.int16) -> np.float32:
    return np.int32(np.int32(bits) << 16).view(np.float32)


@njit(inline="always")
def _narrow(x: np.float32) -> np.int16:
    """Round a finite number to the nearest bfloat16, ties to even."""
    bits = np.float32(x).view(np.int32)
    return np.int16(np.int32(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


@_compiled
def _draw_float(field: np.ndarray, mean: np.ndarray | None, first: np.uint32, second: np.uint32) -> None:
    for i in range(field.size):
        p = _sigmoid(field[i])
        if mean is not None:
            mean[i] = p
        field[i] = _ONE if _uniform(i, first, second) < p else np.float32(0.0)


@_compiled
def _draw_brain(field: np.ndarray, mean: np.ndarray | None, first: np.uint32, second: np.uint32) -> None:
    for i in range(field.size):
        p = _sigmoid(_widen(field[i]))
        if mean is not None:
            mean[i] = _narrow(p)
        field[i] = _BRAIN_ONE if _uniform(i, first, second) < p else np.int16(0)


@_compiled
def _step(
    weight: np.ndarray, velocity: np.ndarray | None, change: np.ndarray, copy: np.ndarray,
    rate: np.float32, momentum: np.float32, keep: np.float32,
) -> None:  # fmt: skip
    for i in range(weight.size):
        moved = rate * _widen(change[i])
        if velocity is not None:
            moved += momentum * velocity[i]
            velocity[i] = moved
        weight[i] = keep * weight[i] + moved
        copy[i] = _narrow(weight[i])


@_compiled
def _add_rows(rows: np.ndarray, total: np.ndarray) -> None:
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            total[j] += _widen(rows[i, j])


@_compiled
def _times(rows: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    for i in range(rows.shape[0]):
        total = np.float32(0.0)
        for j in range(rows.shape[1]):
            total += _widen(rows[i, j]) * vector[j]
        out[i] = total


@_compiled
def _add_times(vector: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += vector[i] * _widen(rows[i, j])


def sandwich(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """Return ``left^T (right vector)`` of bfloat16 matrices in float32; torch would widen both first.

    Args:
        left: Shape ``(n, a)``.
        right: Shape ``(n, b)``.
        vector: float32, shape ``(b,)``.
    """
    between, out = torch.empty(len(right)), torch.zeros(left.shape[1])
    _times(right.view(torch.int16).numpy(), vector.numpy(), between.numpy())
    _add_times(between.numpy(), left.view(torch.int16).numpy(), out.numpy())
    return out


def column_mean(rows: Tensor) -> Tensor:
    """Return the mean over rows of a bfloat16 matrix, in float32; torch would widen the whole matrix first."""
    total = torch.zeros(rows.shape[1])
    _add_rows(rows.view(torch.int16).numpy(), total.numpy())
    return total.div_(len(rows))


def draw_(field: Tensor, mean: Tensor | None, generator: torch.Generator) -> Tensor:
    """Turn fields into zeros and ones, in place, and write the probabilities to ``mean`` if it is given.

    Args:
        field: float32 or bfloat16, contiguous, on the processor.
        mean: Of the same shape and dtype.
        generator: Gives two keys of 31 bits a call.
    """
    first, second = torch.randint(_KEYS, (2,), generator=generator).tolist()
    draw = _draw_brain if field.dtype == torch.bfloat16 else _draw_float
    draw(_flat(field), None if mean is None else _flat(mean), np.uint32(first), np.uint32(second))
    return field


def step_(
    weight: Tensor, velocity: Tensor | None, change: Tensor, copy: Tensor, rate: float, momentum: float, keep: float
) -> None:
    """Set ``velocity`` to ``momentum * velocity + rate * change`` and ``weight`` to ``keep * weight + velocity``.

    Args:
        weight: float32.
        velocity: float32; None if momentum is 0.
        change: bfloat16.
        copy: bfloat16; takes the new weights, rounded.
        rate: Learning rate.
        momentum: Share of the last change that is repeated.
        keep: What weight decay leaves.
    """
    velocity_ = None if velocity is None else _flat(velocity)
    _step(_flat(weight), velocity_, _flat(change), _flat(copy), *map(np.float32, (rate, momentum, keep)))


def _flat(tensor: Tensor) -> np.ndarray:
    """Return the numbers of a contiguous tensor, those of bfloat16 as their bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).view(-1).numpy()
