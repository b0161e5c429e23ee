"""What will become of a training, foretold from its first steps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Forecast", "Prospect"]


class Prospect(StrEnum):
    """How a training will end."""

    TRAINS = "will train"
    FAILS = "will fail"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a training will end, and why.

    Attributes:
        prospect: The answer.
        probability: That it fails, in [0, 1].
        reasons: What spoke most for the answer, the strongest first, in words.
        steps: Real optimizer steps that were made to tell.
    """

    prospect: Prospect
    probability: float
    reasons: tuple[str, ...] = ()
    steps: int = 0
