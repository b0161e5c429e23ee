"""What one run of a grid came to: plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["Configuration", "Result", "Value"]

Value = str | int | float | bool | None
Configuration = Mapping[str, Value]
"""One value an axis."""


@dataclass(frozen=True)
class Result:
    """One run of a grid.

    Attributes:
        configuration: One value an axis.
        looked: Optimizer steps made before each look.
        losses: Mean training loss of the steps since the look before, one a look.
        scores: Score on the validation data, one a look; higher is better.
        train: Score on the training data at the end; None if the run diverged or failed.
        test: Score on the test data at the end; None also where there are none.
        diverged: Whether the loss became non-finite; the run ended with the look before.
        problem: Why the run could not be made, one sentence; empty if it could.
        engine: What trained it: ``compiled``, ``stacked`` or ``plain``.
        seconds: Processor seconds that it took, its share of a stack's.
    """

    configuration: Configuration
    looked: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    train: float | None = None
    test: float | None = None
    diverged: bool = False
    problem: str = ""
    engine: str = ""
    seconds: float = 0.0

    @property
    def validation(self) -> float | None:
        """The last score on the validation data; None if the run diverged, failed, or there are none."""
        return self.scores[-1] if self.scores and not self.diverged else None

    @property
    def best(self) -> float | None:
        """The best score on the validation data at any look; None if there is none."""
        return max(self.scores, default=None)

    @property
    def outcome(self) -> str:
        """``done``, ``diverged`` or ``failed``."""
        return "failed" if self.problem else "diverged" if self.diverged else "done"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; scores that are not finite become None."""
        finite = {key: _finite(value) for key, value in asdict(self).items() if key != "configuration"}
        return {"configuration": dict(self.configuration), **finite}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the result that :meth:`to_dict` wrote."""
        lists = {key: tuple(_number(item) for item in data[key]) for key in ("looked", "losses", "scores")}
        return cls(**{**data, **lists})


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
