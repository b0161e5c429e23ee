"""The last step of Adam and AdamW, recovered from what they keep: nothing has to be copied before the step.

It takes one compiled pass over weights and moments; in several passes of torch it would cost more than the copy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.norms import flat
from steadygrad.monitor.one_pass import one_pass

__all__ = ["can_recover", "recovered_sums"]


def can_recover(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> bool:
    """Whether a step that is about to be made can be recovered afterwards, and numba is there to do it."""
    return (
        one_pass() is not None
        and type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and not group["amsgrad"]
        and parameter.grad is not None
        and type(parameter.grad) is Tensor
        and parameter.dtype == torch.float32
        and parameter.device.type == "cpu"
    )


def recovered_sums(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> tuple[float, float]:
    """Return the sums of squares of a parameter before its last step, and of the step; NaN if it made none.

    The step is that of Loshchilov and Hutter 2019, algorithm 2, solved for the old weights, before their rounding.
    """
    state, compiled = optimizer.state.get(parameter, {}), one_pass()
    if compiled is None or "exp_avg" not in state or state["exp_avg"].stride() != parameter.stride():
        return math.nan, math.nan
    step, rate, (beta1, beta2) = float(state["step"]), float(group["lr"]), map(float, group["betas"])
    shrink = 1.0 - rate * group["weight_decay"] if group["decoupled_weight_decay"] else 1.0
    # new = shrink * old - rate / (1 - beta1^t) * first / (sqrt(second / (1 - beta2^t)) + eps)
    weights, moved = compiled.adam_sums(
        *(flat(tensor.detach()).numpy() for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])),
        np.float32(rate / (1.0 - beta1**step)),
        np.float32((1.0 - beta2**step) ** -0.5),
        np.float32(group["eps"]),
        np.float32(1.0 / shrink - 1.0),
    )
    return weights / shrink**2, moved
