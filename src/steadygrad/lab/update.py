"""The optimizers that a stack can step: constants of each run as data, so that runs with different ones share a step.

The formulas are those of torch 2.13 (``torch.optim``), whose results they give up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, RMSprop

from steadygrad.training import TrainingSetup, make_optimizer, trainable

__all__ = ["KINDS", "FusedUpdate", "Rule", "Update", "kernels", "rule_of"]

KINDS = (SGD, RMSprop, Adagrad, Adadelta, Adam)  # a rule's code is its place here

# Settings that a rule has constants for; all others have to be off.
_CONSTANTS = {"lr", "weight_decay", "eps", "momentum", "alpha", "rho", "betas", "lr_decay", "initial_accumulator_value"}
_IRRELEVANT = {"params", "foreach", "fused"}  # how torch computes it, not what


@dataclass(frozen=True)
class Rule:
    """What one run's optimizer does at a step.

    Attributes:
        code: Place of its class in :data:`KINDS`.
        constants: Learning rate, weight decay, epsilon, and two decay rates (SGD: momentum; RMSprop: alpha; Adagrad:
            that of the learning rate; Adadelta: rho; Adam: both betas).
        first: What the first state starts from: Adagrad's initial accumulator, else 0.
    """

    code: int
    constants: tuple[float, ...]
    first: float = 0.0


def rule_of(setup: TrainingSetup) -> Rule | None:
    """Return the rule of a set-up's optimizer; None if anything is done that a rule does not know.

    That is: a scheduler, another class, several parameter groups or not all parameters, hooks (as a gradient
    transform's), a step of its own, RMSprop with momentum, or a setting such as ``nesterov`` or ``amsgrad``.

    Raises:
        UsageError: If the set-up has no optimizer.
        SetupError: If its factory fails.
    """
    optimizer = make_optimizer(setup, setup.model)
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    known = type(optimizer) in KINDS and not any(hooks) and "step" not in vars(optimizer)
    if not known or setup.scheduler is not None or len(optimizer.param_groups) != 1:
        return None
    group = optimizer.param_groups[0]
    odd = any(value for name, value in group.items() if name not in _CONSTANTS | _IRRELEVANT)
    heavy_ball = type(optimizer) is RMSprop and group["momentum"]
    if odd or heavy_ball or isinstance(group["lr"], Tensor) or len(group["params"]) != len(trainable(setup.model)):
        return None
    names = {SGD: "momentum", RMSprop: "alpha", Adagrad: "lr_decay", Adadelta: "rho"}
    rates = group["betas"] if type(optimizer) is Adam else (group[names[type(optimizer)]], 0.0)
    constants = (group["lr"], group["weight_decay"], group.get("eps", 0.0), *rates)
    start = float(group.get("initial_accumulator_value", 0.0))
    return Rule(KINDS.index(type(optimizer)), tuple(map(float, constants)), start)


class Update:
    """Steps the optimizers of a stack of runs; runs of one class side by side make fewer, larger operations."""

    def __init__(self, rules: Sequence[Rule], like: Tensor) -> None:
        self._parts: list[tuple[int, slice, tuple[Tensor, ...]]] = []
        begin = 0
        for code, members in groupby(rules, key=lambda rule: rule.code):
            constants = torch.tensor([rule.constants for rule in members], dtype=torch.float64, device=like.device)
            part = slice(begin, begin + len(constants))
            self._parts.append((code, part, constants.unsqueeze(1).unbind(2)))
            begin = part.stop

    def __call__(self, step: int, weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> None:
        """Make step number ``step``, from 1, in place.

        Args:
            step: Number of the step.
            weights: Shape ``(runs, parameters)``.
            gradient: The same; overwritten.
            first: The optimizers' first state, of the same shape.
            second: Their second one.
        """
        for code, part, constants in self._parts:
            _update(code, constants, step, weights[part], gradient[part], first[part], second[part])


class FusedUpdate:
    """The same in compiled code on a processor: one pass over weights and state; needs numba."""

    def __init__(self, rules: Sequence[Rule], like: Tensor) -> None:
        self._codes = np.array([rule.code for rule in rules])
        self._constants = np.array([rule.constants for rule in rules])

    def __call__(self, step: int, weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> None:
        """Make step number ``step``, from 1, in place; see :meth:`Update.__call__`."""
        rows = (tensor.numpy() for tensor in (weights, gradient, first, second))
        kernels().update_rows(self._codes, self._constants, step, *rows)


@lru_cache(maxsize=1)
def kernels() -> Any:
    """Return the compiled code; None without numba."""
    try:
        from steadygrad.lab import kernels as compiled
    except ImportError:
        return None
    return compiled


def _update(
    code: int, constants: tuple[Tensor, ...], step: int, weights: Tensor, g: Tensor, first: Tensor, second: Tensor
) -> None:
    """Step runs of one class; the constants, float64 of shape ``(runs, 1)``, are rounded only once combined."""
    lr, decay, eps, keep, keep_second = constants
    dtype, kind = weights.dtype, KINDS[code]
    g.addcmul_(weights, decay.to(dtype))
    if kind is SGD:
        change = first.mul_(keep.to(dtype)).add_(g) * lr.to(dtype) if keep.any() else g.mul_(lr.to(dtype))
    elif kind is RMSprop:
        first.mul_(keep.to(dtype)).add_(g.square() * (1 - keep).to(dtype))
        change = g.mul_(lr.to(dtype)).div_(first.sqrt().add_(eps.to(dtype)))
    elif kind is Adagrad:
        first.addcmul_(g, g)
        change = g.mul_((lr / (1 + (step - 1) * keep)).to(dtype)).div_(first.sqrt().add_(eps.to(dtype)))
    elif kind is Adadelta:
        first.mul_(keep.to(dtype)).add_(g.square() * (1 - keep).to(dtype))
        change = g.mul_((second + eps.to(dtype)).sqrt_()).div_((first + eps.to(dtype)).sqrt_())
        second.mul_(keep.to(dtype)).add_(change.square() * (1 - keep).to(dtype))
        change.mul_(lr.to(dtype))
    else:
        first.mul_(keep.to(dtype)).add_(g * (1 - keep).to(dtype))
        second.mul_(keep_second.to(dtype)).add_(g.square() * (1 - keep_second).to(dtype))
        scale = second.sqrt().mul_((1 - keep_second**step).rsqrt().to(dtype)).add_(eps.to(dtype))
        change = (first * (lr / (1 - keep**step)).to(dtype)).div_(scale)
    weights.sub_(change)
