"""The last step of Adam and AdamW, recovered from what they keep: nothing has to be copied before the step.

It takes one compiled pass over weights and moments; in several passes of torch it would cost more than the copy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.norms import flat

__all__ = ["AdamSteps", "adam_sums", "one_pass"]

STRETCH = 2048  # entries, summed in float32 and added in float64
NONE = np.float32(0.0)
# Torch shares a pass among its threads; one core keeps up with few of them.
MOST_THREADS = 4


def one_pass() -> Callable[..., Any] | None:
    """Return the compiled :func:`adam_sums`; None without numba, or where torch's own threads are faster."""
    return _compiled() if torch.get_num_threads() <= MOST_THREADS else None


@functools.cache
def _compiled() -> Callable[..., Any] | None:
    try:
        from numba import njit
    except ImportError:
        return None
    # Sums may be taken in any order; whether they are finite is asked of the results, outside.
    return njit(fastmath=True, error_model="numpy", cache=True)(adam_sums)


class AdamSteps:
    """Tell what steps of Adam and AdamW were, where numba is there to do it.

    Args:
        optimizer: Any optimizer; of others than these two nothing can be told.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._group_of: dict[int, dict[str, Any]] = {}

    def tells(self, weights: Sequence[Tensor]) -> set[int]:
        """Return the places of those whose step, which is about to be made, can be told afterwards."""
        if one_pass() is None or type(self._optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            return set()
        self._group_of = {
            id(weight): group
            for group in self._optimizer.param_groups
            if not group["amsgrad"]
            for weight in group["params"]
        }
        return {
            index
            for index, weight in enumerate(weights)
            if weight.dtype == torch.float32
            and type(weight.grad) is Tensor
            and weight.is_cpu
            and id(weight) in self._group_of
        }

    def sums(self, weight: Tensor) -> tuple[float, float]:
        """Return the sums of squares of a parameter before its last step, and of the step; NaN if it made none.

        The step is that of Loshchilov and Hutter 2019, algorithm 2, solved for the old weights, before their rounding.
        """
        state, group, compiled = self._optimizer.state.get(weight, {}), self._group_of[id(weight)], one_pass()
        if compiled is None or "exp_avg" not in state or state["exp_avg"].stride() != weight.stride():
            return math.nan, math.nan
        step, rate, (beta1, beta2) = float(state["step"]), float(group["lr"]), map(float, group["betas"])
        shrink = 1.0 - rate * group["weight_decay"] if group["decoupled_weight_decay"] else 1.0
        # new = shrink * old - rate / (1 - beta1^t) * first / (sqrt(second / (1 - beta2^t)) + eps)
        weights, moved = compiled(
            flat(weight.detach()).numpy(),
            flat(state["exp_avg"]).numpy(),
            flat(state["exp_avg_sq"]).numpy(),
            np.float32(rate / (1.0 - beta1**step)),
            np.float32((1.0 - beta2**step) ** -0.5),
            np.float32(group["eps"]),
            np.float32(1.0 / shrink - 1.0),
        )
        return weights / shrink**2, moved


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
