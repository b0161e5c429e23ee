"""What a try of a prescription cost and brought."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from steadygrad.records.prescription import Prescription, Step

__all__ = ["Outcome", "Part", "Run", "Trial"]


class Outcome(StrEnum):
    """How a trial ended."""

    TRIED = "tried"  # ran to its end and was not chosen
    STOPPED = "stopped early"  # fell behind and was stopped
    NOT_APPLICABLE = "not applicable"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        seed: Seed of the weights and of the order of the data.
        steps: Optimizer steps made.
        score: Metric after the last step, higher is better; ``-inf`` if the training diverged.
        losses: Training losses, thinned to at most 200, first and last included.
        diverged: Whether the loss became non-finite.
    """

    seed: int
    steps: int
    score: float
    losses: tuple[float, ...] = ()
    diverged: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One prescription put to the test.

    Attributes:
        prescription: What was tried, with the settings found on the way (a learning rate).
        runs: Its trainings, the last one the longest.
        outcome: How it ended.
        reason: Why, in words; empty if the outcome says it all.
        cost: Optimizer steps spent on it, searches for a learning rate included.
    """

    prescription: Prescription
    runs: tuple[Run, ...] = ()
    outcome: Outcome = Outcome.TRIED
    reason: str = ""
    cost: int = 0

    @property
    def score(self) -> float:
        """Score of the last run; ``-inf`` if none ran."""
        return self.runs[-1].score if self.runs else float("-inf")


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of a combination brings, by a pair of short trainings on one seed.

    Attributes:
        step: The step that was left out.
        whole: Score of the whole combination.
        without: Score without the step; ``-inf`` if it then diverges or fails.
        steps: Optimizer steps of each of the two trainings.
        dropped: Whether the step was left out of the prescription, which is as good without it.
    """

    step: Step
    whole: float
    without: float
    steps: int
    dropped: bool = False
