"""Optimizer factories whose optimizers carry gradient transforms: how transforms enter a training set-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from steadygrad.errors import NotApplicableError
from steadygrad.remedies.attach import attach
from steadygrad.remedies.gradients import GradientTransform, chain
from steadygrad.training import TrainingSetup, WithLearningRate

__all__ = ["WithTransforms", "add_transform", "gradient_transforms", "with_transforms"]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class WithTransforms:
    """An optimizer factory like ``factory`` whose optimizers apply gradient transforms, in order, before each step.

    It pickles if the factory does: transforms are kept as what makes them.
    """

    factory: OptimizerFactory
    transforms: tuple[partial[GradientTransform], ...]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer."""
        optimizer = self.factory(parameters)
        attach(optimizer, chain(*(make() for make in self.transforms)))
        return optimizer


def gradient_transforms(factory: OptimizerFactory | None) -> tuple[partial[GradientTransform], ...]:
    """Return what makes the transforms that a factory's optimizers carry."""
    if isinstance(factory, WithTransforms):
        return factory.transforms
    inner = getattr(factory, "factory", None)
    return gradient_transforms(inner) if inner is not None else ()


def with_transforms(factory: OptimizerFactory, transforms: tuple[partial[GradientTransform], ...]) -> OptimizerFactory:
    """Return a factory of the same optimizers that carry these transforms and no others.

    A learning rate stays outermost, where a search looks for it; weight steps stay inside, so that a step that is
    skipped is none for them either.
    """
    if isinstance(factory, WithTransforms):
        factory = factory.factory
    elif isinstance(factory, WithLearningRate) or gradient_transforms(factory):
        inner: OptimizerFactory = replace(factory, factory=with_transforms(factory.factory, transforms))  # type: ignore[type-var, attr-defined]  # a wrapper of ours
        return inner
    return WithTransforms(factory, transforms) if transforms else factory


def add_transform(
    setup: TrainingSetup, name: str, transform: Callable[..., GradientTransform], **settings: Any
) -> TrainingSetup:
    """Return a set-up whose optimizers apply ``transform(**settings)`` last, in place of an earlier one of its kind.

    Raises:
        NotApplicableError: If the set-up has no optimizer; ``name`` says which remedy wanted one.
        UsageError: If a setting is out of range.
    """
    if setup.optimizer is None:
        raise NotApplicableError(
            f"{name}: expected a set-up with an optimizer, got None. Choose one with optimizer(name=...)."
        )
    transform(**settings)  # a setting out of range is refused here, not in the midst of a training
    others = tuple(other for other in gradient_transforms(setup.optimizer) if other.func is not transform)
    return setup.replace(optimizer=with_transforms(setup.optimizer, (*others, partial(transform, **settings))))
