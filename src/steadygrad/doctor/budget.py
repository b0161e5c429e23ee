"""What a treatment may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steadygrad.errors import UsageError

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a treatment may spend.

    Attributes:
        trials: Prescriptions to try at most, those included that leave one part of the best one out.
        steps: Optimizer steps a training; None for the set-up's planned length.
        seconds: Time after which no new trial starts; one is always tried, and what was found by then is still proven.
    """

    trials: int = 20
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "steps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"Budget: expected {name} to be a whole number of at least 1, got {value!r}.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UsageError(f"Budget: expected seconds above 0 and finite, got {self.seconds!r}.")
