"""Keep weights within bounds: changes of the weights right after each optimizer step."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils.hooks import RemovableHandle

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training.setup import TrainingSetup

__all__ = [
    "ClipWeights",
    "MaxNorm",
    "WeightStep",
    "WithWeightSteps",
    "add_weight_step",
    "after_step",
    "clip_weights",
    "matrices",
    "max_norm",
    "weight_steps",
    "with_weight_steps",
]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class WeightStep(Protocol):
    """Change weights in place after an optimizer step that used the learning rate ``lr``."""

    def __call__(self, parameters: list[nn.Parameter], lr: float | Tensor) -> None:
        """Change them."""


def after_step(optimizer: torch.optim.Optimizer, step: WeightStep) -> RemovableHandle:
    """Let ``step`` change the weights of ``optimizer`` after each of its steps, until the handle's ``remove()``.

    It is called group by group with the parameters that have a gradient and the rate of the step just made; of several,
    the last one put on comes first. A step that a ``GradScaler`` or a gradient transform skips is no step. Nothing is
    kept between steps, so there is nothing to save or to resume. Copies of the optimizer do not carry it.

    Example:
        >>> weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> handle = after_step(optimizer, MaxNorm(1.0))
        >>> weight.grad = torch.zeros_like(weight)
        >>> optimizer.step()
        >>> weight.data
        tensor([[0.6000, 0.8000]])
        >>> handle.remove()
    """
    handle = optimizer.register_step_post_hook(_Hook(step))
    # First of all hooks: a gradient transform that skips a step hides the gradients until its own hook.
    cast("OrderedDict[int, Any]", optimizer._optimizer_step_post_hooks).move_to_end(handle.id, last=False)
    return handle


@dataclass(frozen=True, slots=True)
class _Hook:
    step: WeightStep

    @_disable_dynamo  # torch.compiler.disable would import the compiler now
    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # from GradScaler, to optimizers that skip steps themselves
        if found_inf is not None and found_inf.item():
            return
        for group in optimizer.param_groups:
            self.step([parameter for parameter in group["params"] if parameter.grad is not None], group["lr"])


@dataclass(frozen=True, slots=True)
class WithWeightSteps:
    """An optimizer factory like ``factory``, whose optimizers make ``steps``, in order, after each of their own."""

    factory: OptimizerFactory
    steps: tuple[WeightStep, ...]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer."""
        optimizer = self.factory(parameters)
        for step in reversed(self.steps):  # the last one put on comes first
            after_step(optimizer, step)
        return optimizer


def weight_steps(factory: OptimizerFactory | None) -> tuple[WeightStep, ...]:
    """Return the weight steps that a factory's optimizers make."""
    if isinstance(factory, WithWeightSteps):
        return factory.steps
    inner = getattr(factory, "factory", None)  # of any wrapper around a factory
    return weight_steps(inner) if inner is not None else ()


def with_weight_steps(factory: OptimizerFactory, steps: tuple[WeightStep, ...]) -> OptimizerFactory:
    """Return a factory of the same optimizers that make these weight steps and no others."""
    if isinstance(factory, WithWeightSteps):
        factory = factory.factory
    elif (inner := getattr(factory, "factory", None)) is not None:
        return replace(cast("Any", factory), factory=with_weight_steps(inner, steps))
    return WithWeightSteps(factory, steps) if steps else factory


def add_weight_step(setup: TrainingSetup, step: WeightStep) -> TrainingSetup:
    """Return a set-up whose optimizers make ``step`` too, in place of an earlier one of its class.

    Raises:
        NotApplicableError: If the set-up has no optimizer.
    """
    if setup.optimizer is None:
        raise NotApplicableError(
            f"{type(step).__name__}: expected a set-up with an optimizer, got None. "
            "Choose one with optimizer(name=...)."
        )
    others = tuple(other for other in weight_steps(setup.optimizer) if type(other) is not type(step))
    return setup.replace(optimizer=with_weight_steps(setup.optimizer, (*others, step)))


def matrices(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters of two or more dimensions: weights, without biases and the scales of normalizations."""
    return [parameter for parameter in parameters if parameter.dim() > 1]


@dataclass(frozen=True, slots=True)
class MaxNorm:
    """Project weights onto the ball ``|w| <= bound``; what lies within stays as it is, bit for bit.

    Biases and other vectors are left alone, and so is what holds NaN or inf.

    Attributes:
        bound: Largest L2 norm, above 0.
        over: What has that norm: each ``"unit"`` (a slice along dimension 0), or the weight of a whole ``"layer"``.

    Reference:
        Srivastava et al., Dropout, 2014, sec. 5.1; Pascanu et al. 2013 for gradients alike.
    """

    bound: float
    over: Literal["unit", "layer"] = "unit"

    def __post_init__(self) -> None:
        _check_bound("MaxNorm", self.bound)

    def __call__(self, parameters: list[nn.Parameter], lr: float | Tensor) -> None:
        """Project in place; the learning rate plays no part."""
        for weight in matrices(parameters):
            dims = list(range(1 if self.over == "unit" else 0, weight.dim()))
            wide = torch.float32 if weight.device.type == "mps" else torch.float64  # norms beyond float16 and float32
            norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True, dtype=wide)
            # A projected weight misses the bound by rounding: projecting it again must change nothing.
            too_long = (norm > self.bound * (1 + torch.finfo(weight.dtype).eps)) & norm.isfinite()
            weight.mul_(torch.where(too_long, self.bound / norm, 1.0).to(weight.dtype))


@dataclass(frozen=True, slots=True)
class ClipWeights:
    """Clip every entry of every parameter to ``[-bound, bound]``.

    Attributes:
        bound: Largest absolute value, above 0.

    Reference:
        Arjovsky et al., Wasserstein GAN, 2017, algorithm 1 (0.01, for a critic). https://arxiv.org/abs/1701.07875
    """

    bound: float

    def __post_init__(self) -> None:
        _check_bound("ClipWeights", self.bound)

    def __call__(self, parameters: list[nn.Parameter], lr: float | Tensor) -> None:
        """Clip in place; the learning rate plays no part."""
        for parameter in parameters:
            parameter.clamp_(-self.bound, self.bound)


def _check_bound(where: str, bound: float) -> None:
    if not 0 < bound < math.inf:
        raise UsageError(f"{where}: expected bound above 0 and finite, got {bound}. Typical are 0.01 to 4.")


@remedy(
    Card(
        name="max_norm",
        treats=(Symptom.NONFINITE,),
        site=Site.WEIGHT,
        summary="Project the weights of each unit back into a ball after every step.",
        reference="Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html, sec. 5.1",
        hurts="A bound below the norm of a sound initialization (1.4 for He) makes the signal vanish with depth.",
        cost="one read of the weights a step",
        not_for="Vanishing: it never makes a weight larger. Exploding: weights and loss stay finite, but where signals "
        "grow from the start the network still does not train.",
        formula="w <- w * min(1, c / |w|) after each step",
    )
)
def max_norm(setup: TrainingSetup, *, bound: float = 3.0, over: Literal["unit", "layer"] = "unit") -> TrainingSetup:
    """Bound the L2 norm of weights after every optimizer step, in place of an earlier such bound.

    Args:
        setup: The set-up to change.
        bound: Largest norm, above 0.
        over: ``"unit"`` bounds the incoming weights of each unit, ``"layer"`` the weights of each layer together.
    """
    return add_weight_step(setup, MaxNorm(bound, over))


@remedy(
    Card(
        name="clip_weights",
        treats=(Symptom.NONFINITE,),
        site=Site.WEIGHT,
        summary="Clip every weight to a fixed range after every step.",
        reference="Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, algorithm 1",
        hurts="It takes capacity: weights pile up at the two bounds.",
        cost="one write of the weights a step",
        not_for="Exploding gradients: it stops NaN, but the network still does not train. Vanishing gets worse.",
        formula="w <- min(max(w, -c), c) after each step",
    )
)
def clip_weights(setup: TrainingSetup, *, bound: float = 1.0) -> TrainingSetup:
    """Clip all parameters after every optimizer step, in place of an earlier such bound.

    Args:
        setup: The set-up to change.
        bound: Largest absolute value, above 0; 0.01 is for critics of GANs.
    """
    return add_weight_step(setup, ClipWeights(bound))
