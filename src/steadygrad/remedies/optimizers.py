"""Change how far and by which rule the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.constraints import weight_steps, with_weight_steps
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.sharding import local_part
from steadygrad.remedies.with_transforms import gradient_transforms, with_transforms
from steadygrad.training import TrainingSetup, WithLearningRate

__all__ = ["ByName", "learning_rate", "optimizer"]

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
_FUSED_DEVICES = {"adagrad": ("cpu",)}  # for all others that have it: both
_NOT_FUSED = ("adadelta", "rmsprop")
_FUSED_IN_SHARDS = ("adam", "adamw")  # whose kernels know DTensors, as FSDP2 makes them


@dataclass(frozen=True)
class ByName:
    """An optimizer factory: the one of that name, as one fused kernel where torch has one for the parameters.

    Attributes:
        name: As the remedy :func:`optimizer` spells it.
        settings: For torch's own class.
        fused: Whether to use the fused kernel where there is one.
    """

    name: str
    settings: Mapping[str, float]
    fused: bool = True

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer."""
        parameters = list(parameters)
        build = partial(_OPTIMIZERS[self.name], parameters, **self.settings)
        return build(fused=True) if self.fused and self._can_fuse(parameters) else build()

    def _can_fuse(self, parameters: list[nn.Parameter]) -> bool:
        devices = _FUSED_DEVICES.get(self.name, ("cpu", "cuda"))
        fits = all(p.is_floating_point() and p.device.type in devices for p in parameters)
        whole = all(local_part(p) is p for p in parameters)
        return fits and self.name not in _NOT_FUSED and (whole or self.name in _FUSED_IN_SHARDS)


@remedy(
    Card(
        name="learning_rate",
        treats=(Symptom.LEARNING_RATE, Symptom.EXPLODING),
        site=Site.OPTIMIZER,
        summary="Set the learning rate; parameter groups keep their ratios.",
        reference="Goodfellow et al., Deep Learning, 2016, sec. 11.4.1",
        hurts="A scheduler that carries its own largest rate (OneCycleLR) overrides it.",
        not_for="Vanishing: layers that get no gradient take no steps at any rate. Explosion from the first step "
        "on needs a rate at which nothing else learns.",
        formula="w <- w - lr * direction",
    )
)
def learning_rate(setup: TrainingSetup, *, lr: float = 1e-3) -> TrainingSetup:
    """Set the largest learning rate of the set-up's own optimizer.

    Args:
        setup: The set-up to change.
        lr: The new rate, above 0.
    """
    _check_rate("learning_rate", lr)
    if setup.optimizer is None:
        raise NotApplicableError(
            "learning_rate: expected a set-up with an optimizer, got None. Choose one with optimizer(name=...)."
        )
    inner = setup.optimizer.factory if isinstance(setup.optimizer, WithLearningRate) else setup.optimizer
    return setup.replace(optimizer=WithLearningRate(inner, float(lr)))


@remedy(
    Card(
        name="optimizer",
        treats=(Symptom.LEARNING_RATE, Symptom.VANISHING),
        site=Site.OPTIMIZER,
        summary="Replace the optimizer; adaptive ones step alike on large and on small gradients.",
        reference="Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101",
        hurts="The set-up's own parameter groups and weight decay are given up. Adagrad's rate falls towards 0.",
        cost="Adam keeps two numbers a parameter",
        not_for="Signals that are lost on the way forward: steps grow to a normal size, but what they follow is noise. "
        "8 layers of small random ReLU weights still learn little.",
        formula="adam: w <- w - lr * m / (sqrt(v) + eps), m and v the unbiased running means of g and g^2; adagrad: v "
        "the sum of g^2; rmsprop: the running mean alone; momentum: m <- 0.9 m + g, w <- w - lr * m",
    )
)
def optimizer(
    setup: TrainingSetup,
    *,
    name: Literal["adamw", "adam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adadelta"] = "adamw",
    lr: float | None = None,
    fused: bool = True,
) -> TrainingSetup:
    """Replace the optimizer; gradient transforms and weight steps that other remedies added stay.

    Args:
        setup: The set-up to change.
        name: The rule; ``"momentum"`` is SGD with momentum 0.9, ``"nesterov"`` the same looking ahead.
        lr: Learning rate, above 0; None for torch's default.
        fused: Use torch's fused kernel where there is one for these parameters; it takes no sparse gradients.
    """
    settings: dict[str, float] = {}
    if lr is not None:
        _check_rate("optimizer", lr)
        settings["lr"] = float(lr)
    factory = with_weight_steps(ByName(name, settings, fused), weight_steps(setup.optimizer))
    return setup.replace(optimizer=with_transforms(factory, gradient_transforms(setup.optimizer)))


def _check_rate(where: str, lr: float) -> None:
    if not 0 < lr < math.inf:
        raise UsageError(f"{where}: expected lr above 0 and finite, got {lr}. Typical values lie between 1e-5 and 1.")
