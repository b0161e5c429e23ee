"""The last step of Adam and AdamW, recovered from what they keep: nothing has to be copied before the step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.norms import flat, sum_of_squares

__all__ = ["AdamStep", "can_recover", "recovered_sums"]

PART = 2**15  # entries: weights, moments and two results of a part lie in a core's cache together


class AdamStep(NamedTuple):
    """How one parameter was stepped: ``new = shrink * old - rate * first / (root_scale * sqrt(second) + eps)``."""

    rate: float
    root_scale: float
    eps: float
    shrink: float


def can_recover(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> bool:
    """Whether a step that is about to be made can be recovered afterwards."""
    return (
        type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and not group["amsgrad"]
        and parameter.grad is not None
        and type(parameter.grad) is Tensor
        and parameter.dtype == torch.float32
        and parameter.device.type == "cpu"
    )


@torch.no_grad()
def recovered_sums(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> tuple[float, float]:
    """Return the sums of squares of a parameter before its last step, and of the step; NaN if it made none.

    The step is that of Loshchilov and Hutter 2019, algorithm 2, solved for the old weights, before their rounding.
    """
    state = optimizer.state.get(parameter, {})
    if "exp_avg" not in state or state["exp_avg"].stride() != parameter.stride():
        return math.nan, math.nan
    made = _made(group, float(state["step"]))
    return _sums(made, *(flat(tensor) for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])))


def _made(group: dict[str, Any], step: float) -> AdamStep:
    rate, (beta1, beta2) = float(group["lr"]), map(float, group["betas"])
    shrink = 1.0 - rate * group["weight_decay"] if group["decoupled_weight_decay"] else 1.0
    return AdamStep(rate / (1.0 - beta1**step), (1.0 - beta2**step) ** -0.5, group["eps"], shrink)


def _sums(made: AdamStep, new: Tensor, first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return the sums of squares of flat old weights and of their step."""
    step, old = torch.empty_like(new[:PART]), torch.empty_like(new[:PART])
    weights = moved = 0.0
    for weight, mean, square in zip(new.split(PART), first.split(PART), second.split(PART), strict=True):
        size = weight.numel()
        root = torch.sqrt(square, out=step[:size]).mul_(made.root_scale).add_(made.eps)
        torch.div(mean, root, out=root).mul_(made.rate)
        shrunk = torch.add(weight, root, out=old[:size])
        if made.shrink != 1.0:
            root.add_(shrunk, alpha=1.0 / made.shrink - 1.0)
        weights += sum_of_squares(shrunk)
        moved += sum_of_squares(root)
    return weights / made.shrink**2, moved
