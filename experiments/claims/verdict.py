"""From numbers over seeds to a verdict: each condition asks whether a whole 95 % interval lies within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Answer(StrEnum):
    """Whether a condition is met."""

    YES = "yes"
    NO = "no"
    UNCLEAR = "unclear"


class Ruling(StrEnum):
    """What becomes of a claim."""

    HOLDS = "holds"
    CONDITIONS = "holds under conditions"
    FALSE = "false"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Condition:
    """One circumstance in which the claim is tried: ``least < effect < most``.

    The answer is yes if the whole interval of the mean effect (Student's t over the seeds) lies within the bounds, no
    if it lies wholly beyond one of them, and unclear if a bound falls into it.

    Attributes:
        where: The circumstance, a few words.
        effects: One effect a seed; for a comparison, the differences of pairs that share seed, data order and weights.
        least: Lower bound.
        most: Upper bound.
    """

    where: str
    effects: Sequence[float]
    least: float = -math.inf
    most: float = math.inf

    @property
    def mean(self) -> float:
        """The mean effect."""
        return float(np.mean(self.effects))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean effect."""
        count = len(self.effects)
        if count < 2:
            return -math.inf, math.inf
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(self.effects, ddof=1) / math.sqrt(count))
        return self.mean - half, self.mean + half

    @property
    def answer(self) -> Answer:
        """Whether the condition is met."""
        low, high = self.interval
        if self.least < low and high < self.most:
            return Answer.YES
        return Answer.NO if high <= self.least or low >= self.most else Answer.UNCLEAR

    @property
    def bounds(self) -> str:
        """The bounds, as a person writes them."""
        if math.isinf(self.most):
            return f"above {self.least:g}"
        return f"below {self.most:g}" if math.isinf(self.least) else f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Verdict:
    """What all conditions of a claim say together."""

    conditions: tuple[Condition, ...]

    @property
    def ruling(self) -> Ruling:
        """Holds where all conditions are met, false where none is; undecided where none is and one may be."""
        answers = {condition.answer for condition in self.conditions}
        if answers == {Answer.YES}:
            return Ruling.HOLDS
        if Answer.YES in answers:
            return Ruling.CONDITIONS
        return Ruling.UNDECIDED if Answer.UNCLEAR in answers else Ruling.FALSE

    def where(self, answer: Answer) -> list[str]:
        """Return the circumstances with that answer."""
        return [condition.where for condition in self.conditions if condition.answer is answer]


def values(outcomes: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """Return one number of every seed."""
    return [outcome[key] for outcome in outcomes]


def gains(outcomes: Sequence[Mapping[str, float]], key: str, over: str) -> list[float]:
    """Return by how much one number exceeds another of the same seed."""
    return [outcome[key] - outcome[over] for outcome in outcomes]
