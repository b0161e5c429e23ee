"""What is being diagnosed and treated: a model, its loss, its optimizer and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Self

import torch
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.training.redraw import shuffle_weights

__all__ = ["TrainingSetup"]

Batch = Any
Data = Any
"""Tensors or arrays of equal length (a tuple, or a dict by name), or any re-iterable of batches."""


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Everything that a training needs, frozen: a change gives a new set-up.

    Attributes:
        model: The network. It is copied before anything is trained or changed.
        loss: ``loss(output, target) -> scalar``; None if ``forward`` returns the loss itself.
        train: Training data: a tuple or dict of tensors or arrays of equal length, the target last (or under one of
            the names ``target``, ``targets``, ``label``, ``labels``, ``y``), or a re-iterable of batches.
        optimizer: ``parameters -> torch.optim.Optimizer``; None is enough for a diagnosis.
        validation: Data that scores; same forms as ``train``.
        forward: ``forward(model, batch) -> output``; by default ``model(*batch[:-1])``, or ``model(**batch)`` without
            the target for a dict.
        scheduler: ``optimizer -> learning-rate scheduler``, stepped once an optimizer step.
        metric: ``metric(outputs, targets) -> float``, higher is better, over the whole validation set. By default
            accuracy for classes, R2 for real targets, else the negative loss.
        batch_size: Samples a step where ``train`` is tensors or arrays.
        steps: Planned length of the training in optimizer steps.
        device: Where to run; None is where the model's parameters are.
        redraw: Draws the weights afresh in place from torch's global random state; None keeps them (a pretrained
            network). By default weights are shuffled within their matrices, which keeps the set-up's own scale.
        seed: Seed of the data order.
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor] | None
    train: Data
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None
    validation: Data | None = None
    forward: Callable[[nn.Module, Batch], Any] | None = None
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    metric: Callable[[Tensor, Tensor], float] | None = None
    batch_size: int = 64
    steps: int = 500
    device: str | torch.device | None = None
    redraw: Callable[[nn.Module], None] | None = shuffle_weights
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise UsageError(
                f"TrainingSetup: expected model to be a torch.nn.Module, got {type(self.model).__name__}. "
                "Pass the network itself, not a class or a function that builds it."
            )
        if self.loss is None and self.forward is None:
            raise UsageError(
                "TrainingSetup: expected a loss, got None. Pass loss(output, target), "
                "or a forward(model, batch) that returns the loss."
            )
        if isinstance(self.loss, type):
            raise UsageError(
                f"TrainingSetup: expected loss to be a function, got the class {self.loss.__name__}. "
                f"Pass an instance: {self.loss.__name__}()."
            )
        if isinstance(self.optimizer, torch.optim.Optimizer):
            kind = type(self.optimizer).__name__
            raise UsageError(
                f"TrainingSetup: expected optimizer to be a function of the parameters, got a {kind} instance. "
                f"Pass optimizer=lambda parameters: torch.optim.{kind}(parameters, ...), "
                "so that copies of the model can be trained."
            )
        for name in ("loss", "optimizer", "forward", "scheduler", "metric", "redraw"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise UsageError(f"TrainingSetup: expected {name} to be a function, got {type(value).__name__}.")
        for name in ("batch_size", "steps"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise UsageError(f"TrainingSetup: expected {name} to be a whole number of at least 1, got {value!r}.")

    def replace(self, **changes: Any) -> Self:
        """Return a set-up with some fields changed."""
        return replace(self, **changes)
