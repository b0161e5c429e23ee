"""Thresholds: numbers, or numbers that follow the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from steadygrad.errors import UsageError

__all__ = ["Decaying", "Threshold", "by_step", "positive", "share", "whole"]

Threshold = float | Callable[[int], float]
"""A number, or a function of the number of steps made so far."""


@dataclass(frozen=True, slots=True)
class Decaying:
    """A threshold that falls from step to step: ``max(least, start * decay ** step)``.

    Attributes:
        start: The threshold of the first step, above 0.
        decay: Factor a step, within (0, 1].
        least: Where it stops falling, above 0: a bound that goes on falling ends the training.

    Example:
        >>> bound = Decaying(2.0, decay=0.5, least=0.3)
        >>> [bound(step) for step in range(4)]
        [2.0, 1.0, 0.5, 0.3]
    """

    start: float
    decay: float
    least: float

    def __post_init__(self) -> None:
        positive("Decaying", "start", self.start)
        positive("Decaying", "least", self.least)
        if not 0 < self.decay <= 1:
            raise UsageError(f"Decaying: expected decay within (0, 1], got {self.decay}. Try 0.999.")

    def __call__(self, step: int) -> float:
        """Return the threshold of a step."""
        return max(self.least, self.start * self.decay**step)


def positive(where: str, name: str, number: float) -> float:
    """Return ``number``.

    Raises:
        UsageError: If it is not above 0 and finite.
    """
    if not 0 < number < math.inf:
        raise UsageError(f"{where}: expected {name} above 0 and finite, got {number}. Start with its default.")
    return float(number)


def whole(where: str, name: str, number: int) -> int:
    """Return ``number``.

    Raises:
        UsageError: If it is not a whole number of at least 1.
    """
    if number != int(number) or number < 1:
        raise UsageError(f"{where}: expected {name} to be a whole number of at least 1, got {number}. Use its default.")
    return int(number)


def share(where: str, name: str, number: float, whole: float = 1.0) -> float:
    """Return ``number`` as a share of ``whole``.

    Raises:
        UsageError: If it is not above 0 and below ``whole``.
    """
    if not 0 < number < whole:
        raise UsageError(f"{where}: expected {name} above 0 and below {whole:g}, got {number}. Start with its default.")
    return number / whole


def by_step(
    where: str, name: str, threshold: Threshold, check: Callable[[str, str, float], float] = positive
) -> Callable[[int], float]:
    """Return a threshold as a function of the step that gives numbers that ``check`` has seen.

    Raises:
        UsageError: If the number, now or later, is refused.
    """
    if callable(threshold):
        return lambda step: check(where, name, threshold(step))
    constant = check(where, name, threshold)
    return lambda _: constant
