"""The smallest honest training loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import nn

from steadygrad.errors import SetupError, UsageError
from steadygrad.training.batches import device_of, floating_dtype, generators_of, one_pass, seed_of_pass
from steadygrad.training.blame import blamed
from steadygrad.training.forward import run_batch
from steadygrad.training.setup import Batch, TrainingSetup
from steadygrad.training.snapshot import RandomState, seeded

__all__ = ["Training", "foreign_parameters", "make_optimizer", "trainable"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def foreign_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> int:
    """Return how many parameters an optimizer holds that are not the model's."""
    known = {id(parameter) for parameter in model.parameters()}
    return sum(id(parameter) not in known for group in optimizer.param_groups for parameter in group["params"])


def make_optimizer(setup: TrainingSetup, model: nn.Module, foreign: bool = False) -> torch.optim.Optimizer:
    """Build the set-up's optimizer over the trainable parameters of ``model``.

    Args:
        setup: Whose factory is called.
        model: What it is to hold the parameters of.
        foreign: Whether it may hold others; it must not step then.

    Raises:
        UsageError: If the set-up has no optimizer.
        SetupError: If the factory raises, or returns something else or an optimizer of other parameters.
    """
    if setup.optimizer is None:
        raise UsageError(
            "TrainingSetup: expected an optimizer, got None. "
            "Pass optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)."
        )
    with blamed("optimizer: the factory failed"):
        optimizer = setup.optimizer(trainable(model))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SetupError(
            f"optimizer: expected the factory to return a torch optimizer, got {type(optimizer).__name__}."
        )
    if not foreign and foreign_parameters(optimizer, model):
        raise SetupError(
            "optimizer: expected one over the parameters that the factory is given, got one over others. "
            "Use the factory's argument, because copies of the model are trained, not the model itself."
        )
    return optimizer


@dataclass
class Training:
    """A training that can be advanced a few steps at a time.

    The set-up's model is copied at the start; the set-up stays as it is. The order of the data and all that is random
    in the model follow from ``seed`` alone, whatever runs in between, and the caller's random states are left as
    found. A non-finite loss ends the training for good (:attr:`diverged`).

    Attributes:
        setup: What is trained.
        seed: Seed of the order of the data, and of dropout and its like.
        model: The copy that learns.
        losses: One loss a step.

    Raises:
        SetupError: If the model cannot be copied, or model, loss, optimizer, scheduler or data fail.
    """

    setup: TrainingSetup
    seed: int
    model: nn.Module = field(init=False)
    losses: list[float] = field(init=False, default_factory=list)
    diverged: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        with blamed("model: cannot be copied"):
            self.model = copy.deepcopy(self.setup.model).to(device_of(self.setup))
        self.model.train()
        self._optimizer = make_optimizer(self.setup, self.model)
        with blamed("scheduler: the factory failed"):
            self._scheduler = self.setup.scheduler(self._optimizer) if self.setup.scheduler else None
        self._batches = self._endless()
        self._random: RandomState | None = None

    def advance(self, steps: int, on_step: Callable[[int], None] | None = None) -> None:
        """Train ``steps`` further optimizer steps; stop early only if the loss becomes non-finite.

        Args:
            steps: Optimizer steps.
            on_step: Called after each step with the number of steps made so far.
        """
        generators = generators_of(self.setup.train)
        with seeded(self.seed, *generators):
            if self._random is not None:
                self._random.restore()
            for _ in range(steps):
                if self.diverged:
                    break
                self._step(next(self._batches))
                if on_step is not None:
                    on_step(len(self.losses))
            self._random = RandomState(*generators)

    def recent_loss(self) -> float:
        """Return the mean loss of the last tenth of the steps; ``inf`` if the training diverged."""
        if self.diverged or not self.losses:
            return math.inf
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(last) / len(last)

    def _step(self, batch: Batch) -> None:
        loss = math.nan

        def closure() -> float:
            nonlocal loss
            self._optimizer.zero_grad()
            result = run_batch(self.setup, self.model, batch).loss
            loss = result.item()
            if result.requires_grad and math.isfinite(loss):
                with blamed("loss: the backward pass failed"):
                    result.backward()
            return loss

        if isinstance(self._optimizer, torch.optim.LBFGS):
            with blamed("optimizer: step failed"):
                self._optimizer.step(closure)
        elif math.isfinite(closure()):
            with blamed("optimizer: step failed"):
                self._optimizer.step()
        self.losses.append(loss)
        self.diverged = not math.isfinite(loss)
        if self._scheduler is not None and not self.diverged:
            with blamed("scheduler: step failed"):
                self._scheduler.step()

    def _endless(self) -> Iterator[Batch]:
        device, floating = device_of(self.setup), floating_dtype(self.setup)
        for epoch in count():
            batch = None
            seed = seed_of_pass(self.seed, epoch)
            for batch in one_pass(self.setup.train, self.setup.batch_size, device, seed, floating):
                yield batch
            if batch is None:
                raise SetupError(
                    "data: expected an iterable that can be read again, got nothing on a further pass. "
                    "Pass a DataLoader or a list of batches, not a generator."
                )
