"""The proof of a prescription: the same trainings without and with it, on fresh seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import mean, stdev

from steadygrad.records.prescription import Prescription
from steadygrad.records.trial import Run

__all__ = ["Proof", "Verdict"]


class Verdict(StrEnum):
    """What a treatment came to."""

    HEALTHY = "healthy"  # nothing to do: the set-up learns as it is
    CURED = "cured"  # better on every seed, and up to the goal
    IMPROVED = "improved"  # better on every seed, and better than luck; short of the goal, or no goal is known
    NOT_CURED = "not cured"


@dataclass(frozen=True, slots=True)
class Proof:
    """Paired trainings, one pair a seed: same data order, weights redrawn from the same seed.

    Attributes:
        prescription: What was proven.
        before: Trainings of the set-up as it came.
        after: Trainings of the treated set-up; fewer than ``before`` if some failed.
        metric: Name of the score, higher is better.
        chance: Score of a constant answer; None if unknown.
        goal: Score that counts as cured; None if no reference learner fits the data.
        verdict: What it comes to.
    """

    prescription: Prescription
    before: tuple[Run, ...]
    after: tuple[Run, ...]
    metric: str
    verdict: Verdict
    chance: float | None = None
    goal: float | None = None

    def reaches(self, runs: tuple[Run, ...], share: float = 1.0) -> bool:
        """Whether runs go on average this share of the way from chance to the goal; not where either is unknown."""
        if self.goal is None or self.chance is None or not runs:
            return False
        return mean(run.score for run in runs) >= self.chance + share * (self.goal - self.chance)

    @staticmethod
    def spread(runs: tuple[Run, ...]) -> tuple[float, float]:
        """Return mean and sample standard deviation of the scores of ``runs``.

        One run that diverged makes them ``(-inf, nan)``, no run at all ``(nan, nan)``.
        """
        scores = [run.score for run in runs]
        if not scores:
            return math.nan, math.nan
        if not all(map(math.isfinite, scores)):
            return -math.inf, math.nan
        return mean(scores), stdev(scores) if len(scores) > 1 else 0.0
