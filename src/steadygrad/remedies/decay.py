"""Shrink weights a little with every step: L1, L2 and decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.remedies.constraints import add_weight_step, matrices
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.norms import entries
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.sharding import local_part
from steadygrad.remedies.with_transforms import add_transform
from steadygrad.training.setup import TrainingSetup

__all__ = ["SoftThreshold", "WeightDecay", "add_weights", "l1_penalty", "l2_penalty", "weight_decay"]

_NOT_FOR = "Vanishing and exploding: by the time weights have shrunk, the run is lost or the loss is at rest."


@dataclass(frozen=True, slots=True)
class SoftThreshold:
    """Make the proximal step of an L1 penalty: ``w <- sign(w) * max(|w| - lr * strength, 0)``; biases stay.

    Unlike a subgradient added to the gradient it reaches exact zeros. It is the exact proximal step of plain SGD; after
    Adam, whose steps have another scale for each weight, it is the same shrinkage for all.

    Attributes:
        strength: Factor of the penalty ``sum(|w|)``, 0 or above.

    Reference:
        Parikh and Boyd, Proximal Algorithms, 2014, sec. 6.5.2.
    """

    strength: float

    def __post_init__(self) -> None:
        _check_strength("SoftThreshold", self.strength)

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter], lr: float | Tensor) -> None:
        """Shrink in place."""
        threshold = float(lr) * self.strength
        for weight in matrices(parameters):
            weight.sub_(weight.clamp(-threshold, threshold))


@dataclass(frozen=True, slots=True)
class WeightDecay:
    """Shrink weights apart from the gradient: ``w <- w * (1 - lr * strength)`` after each step; biases stay.

    AdamW shrinks right before its step instead, which differs by ``lr * strength`` times the step.

    Attributes:
        strength: Decay a step and unit of learning rate, 0 or above.

    Reference:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019. https://arxiv.org/abs/1711.05101
    """

    strength: float

    def __post_init__(self) -> None:
        _check_strength("WeightDecay", self.strength)

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter], lr: float | Tensor) -> None:
        """Shrink in place."""
        for weight in matrices(parameters):
            weight.mul_(1 - lr * self.strength)


def add_weights(strength: float) -> GradientTransform:
    """Add the gradient of ``strength / 2 * sum(w**2)`` to the gradients of all weights; biases stay.

    The optimizer rescales the penalty along with the gradient, so that with Adam weights of large gradients are hardly
    held back.

    Args:
        strength: Factor of the penalty, 0 or above.

    Raises:
        NotApplicableError: At the first step, if a gradient is sparse.
    """
    _check_strength("add_weights", strength)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        for tensor, parameter in zip(gradients.dense("add_weights"), gradients.parameters, strict=True):
            if parameter.dim() > 1:
                tensor.add_(entries(local_part(parameter.detach())), alpha=strength)
        return state

    return GradientTransform(lambda parameters: {}, update, "add_weights")


def _check_strength(where: str, strength: float) -> None:
    if not 0 <= strength < math.inf:
        raise UsageError(f"{where}: expected strength of 0 or above, got {strength}. Start with 1e-4.")


@remedy(
    Card(
        name="l1_penalty",
        treats=(),
        site=Site.WEIGHT,
        summary="Draw weights to exact zeros, by the proximal step of an L1 penalty.",
        reference="Parikh and Boyd 2014, https://web.stanford.edu/~boyd/papers/prox_algs.html, sec. 6.5.2",
        hurts="Small weights of a deep network go first; if many do, the signal vanishes.",
        cost="one write of the weights a step",
        not_for=_NOT_FOR,
        formula="w <- sign(w) * max(|w| - lr * s, 0) after each step",
    )
)
def l1_penalty(setup: TrainingSetup, *, strength: float = 1e-4) -> TrainingSetup:
    """Add an L1 penalty on weights, in place of an earlier one.

    Args:
        setup: The set-up to change.
        strength: Factor of the penalty, 0 or above.
    """
    return add_weight_step(setup, SoftThreshold(strength))


@remedy(
    Card(
        name="l2_penalty",
        treats=(),
        site=Site.GRADIENT,
        summary="Add the gradient of an L2 penalty on weights to the gradients.",
        reference="Krogh and Hertz 1991, A Simple Weight Decay Can Improve Generalization",
        hurts="With Adam it is not weight decay: use weight_decay there. A clip put on later clips the penalty too.",
        cost="one read of the weights a step",
        not_for=_NOT_FOR,
        formula="g <- g + s * w",
    )
)
def l2_penalty(setup: TrainingSetup, *, strength: float = 1e-4) -> TrainingSetup:
    """Add an L2 penalty on weights, in place of an earlier one, after the set-up's other gradient transforms.

    Args:
        setup: The set-up to change.
        strength: Factor of the penalty, 0 or above.
    """
    return add_transform(setup, "l2_penalty", add_weights, strength=strength)


@remedy(
    Card(
        name="weight_decay",
        treats=(),
        site=Site.WEIGHT,
        summary="Shrink weights by a fixed share a step, apart from the gradient.",
        reference="Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101",
        hurts="It comes on top of the optimizer's own weight_decay, which is 0.01 for torch's AdamW.",
        cost="one write of the weights a step",
        not_for=_NOT_FOR,
        formula="w <- w * (1 - lr * s) after each step",
    )
)
def weight_decay(setup: TrainingSetup, *, strength: float = 0.01) -> TrainingSetup:
    """Add decoupled weight decay, in place of an earlier one.

    Args:
        setup: The set-up to change.
        strength: Decay a step and unit of learning rate, 0 or above.
    """
    return add_weight_step(setup, WeightDecay(strength))
