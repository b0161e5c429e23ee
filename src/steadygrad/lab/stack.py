"""What a grid trains at once: one run, or many of one shape as one computation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import torch
from torch import Tensor

from steadygrad.training import Data, Training, TrainingSetup, evaluate, seed_of_pass, shuffled_rows

__all__ = ["Case", "Plain", "Stack", "batch_rows", "next_rows"]


@dataclass(frozen=True, eq=False)
class Case:
    """A run to be made: its set-up, the seed that all its randomness follows from, and data for a last score."""

    setup: TrainingSetup
    seed: int
    test: Data | None = None


class Stack(Protocol):
    """Runs that advance together; what each gives does not depend on which others there are."""

    engine: str

    def advance(self, steps: int) -> Tensor:
        """Train further and return the losses, float64 of shape ``(runs, steps)``.

        A run ends for good with its first loss that is not finite; NaN follows it.
        """
        ...

    def score(self, run: int, data: Data) -> float:
        """Return the score of a run's present weights on ``data``, higher is better."""
        ...


class Plain:
    """One run, trained by the plain loop; what everything else is measured against."""

    engine = "plain"

    def __init__(self, case: Case) -> None:
        self._training = Training(case.setup, case.seed)

    def advance(self, steps: int) -> Tensor:
        """Train further; see :class:`Stack`."""
        before = len(self._training.losses)
        self._training.advance(steps)
        losses = self._training.losses[before:]
        return torch.tensor([losses + [torch.nan] * (steps - len(losses))], dtype=torch.float64)

    def score(self, run: int, data: Data) -> float:
        """Return the score of the present weights on ``data``."""
        return evaluate(self._training.setup, self._training.model, data)[1]


def batch_rows(rows: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the row numbers of one batch after the other, as :class:`Training` draws them from ``seed``."""
    for epoch in count():
        yield from shuffled_rows(rows, batch_size, seed_of_pass(seed, epoch))


def next_rows(batches: Iterator[Tensor], steps: int) -> Tensor:
    """Return the row numbers of the next batches, shape ``(steps, batch)``."""
    return torch.stack(list(islice(batches, steps)))
