"""The last step of Adam and AdamW, recovered from what they keep: nothing has to be copied before the step.

It takes one compiled pass over weights and moments; in several passes of torch it would cost more than the copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.norms import flat
from steadygrad.monitor.one_pass import one_pass

__all__ = ["AdamSteps"]


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
        weights, moved = compiled.adam_sums(
            flat(weight.detach()).numpy(),
            flat(state["exp_avg"]).numpy(),
            flat(state["exp_avg_sq"]).numpy(),
            np.float32(rate / (1.0 - beta1**step)),
            np.float32((1.0 - beta2**step) ** -0.5),
            np.float32(group["eps"]),
            np.float32(1.0 / shrink - 1.0),
        )
        return weights / shrink**2, moved
