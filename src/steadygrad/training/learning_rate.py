"""Find a learning rate by short trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from steadygrad.errors import SetupError
from steadygrad.training.loop import Training, make_optimizer
from steadygrad.training.setup import TrainingSetup

__all__ = ["RateSearch", "WithLearningRate", "search_learning_rate"]

FACTOR = math.sqrt(10.0)  # between neighbouring rates
ADAPTIVE_START = 1e-3  # torch's default for Adam; a good middle for optimizers that normalize the gradient
LOWEST, HIGHEST = 1e-6, 10.0


@dataclass(frozen=True, slots=True)
class WithLearningRate:
    """An optimizer factory like ``factory``, with the largest learning rate of its parameter groups set to ``lr``.

    The other groups keep their ratio to the largest.
    """

    factory: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    lr: float

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer."""
        optimizer = self.factory(parameters)
        largest = _largest_rate(optimizer)
        for group in optimizer.param_groups:
            share = float(group["lr"]) / largest if largest > 0 else 1.0
            _set_learning_rate(group, self.lr * share)
        optimizer.defaults["lr"] = self.lr
        return optimizer


@dataclass(frozen=True, slots=True)
class RateSearch:
    """What a search found.

    Attributes:
        lr: The best rate.
        losses: The recent training loss that each tried rate reached; ``inf`` where the training diverged.
        steps: Optimizer steps spent.
    """

    lr: float
    losses: dict[float, float]
    steps: int

    @property
    def loss(self) -> float:
        """The recent training loss at the best rate."""
        return self.losses[self.lr]


def search_learning_rate(setup: TrainingSetup, steps: int, seed: int, most: int = 7) -> RateSearch:
    """Search the learning rate whose short training reaches the lowest training loss.

    Rates lie half a decade apart. The search starts at the set-up's own rate (at 1e-3 if that lies outside
    [1e-6, 10]), looks both ways and climbs on where the loss falls. Only training batches are used.

    Args:
        setup: Its optimizer's rate is varied; everything else stays.
        steps: Optimizer steps a rate.
        seed: Seed of the order of the data, the same for every rate.
        most: Rates to try at most.

    Raises:
        SetupError: If the model, the loss or the optimizer fail, or the optimizer has no learning rate.
        UsageError: If the set-up has no optimizer.
    """
    optimizer = make_optimizer(setup, setup.model)  # None is refused here
    assert setup.optimizer is not None
    base = _largest_rate(optimizer)
    start = base if LOWEST <= base <= HIGHEST else ADAPTIVE_START
    tried: dict[int, float] = {}  # by exponent of FACTOR
    spent = 0
    best = 0
    while untried := [e for e in (best, best - 1, best + 1) if e not in tried][: most - len(tried)]:
        for exponent in untried:
            factory = WithLearningRate(setup.optimizer, _rate(start, exponent))
            training = Training(setup.replace(optimizer=factory), seed)
            training.advance(steps)
            spent += len(training.losses)
            tried[exponent] = training.recent_loss()
        best = min(tried, key=lambda exponent: (tried[exponent], exponent))  # all diverged: on to smaller rates
    return RateSearch(_rate(start, best), {_rate(start, e): loss for e, loss in sorted(tried.items())}, spent)


def _largest_rate(optimizer: torch.optim.Optimizer) -> float:
    try:
        return max(float(group["lr"]) for group in optimizer.param_groups)
    except (KeyError, TypeError) as error:
        raise SetupError(
            f"optimizer: expected a number lr in every parameter group of {type(optimizer).__name__}, found none. "
            "The learning rate of an optimizer that makes its own cannot be searched."
        ) from error


def _rate(start: float, exponent: int) -> float:
    return float(f"{start * FACTOR**exponent:.3g}")


def _set_learning_rate(group: dict[str, Any], lr: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"] = torch.full_like(group["lr"], lr)  # a capturable optimizer keeps its rate in a tensor
    else:
        group["lr"] = lr
