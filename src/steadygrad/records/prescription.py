"""What to change in a set-up: names and settings, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Prescription", "Step"]

Setting = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Step:
    """One remedy with its settings, and the codes of the findings it answers."""

    remedy: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    def __str__(self) -> str:
        settings = (f"{key}={_short(value)}" for key, value in self.settings.items())
        return f"{self.remedy}({', '.join(settings)})"


@dataclass(frozen=True, slots=True)
class Prescription:
    """Remedies in the order in which they are applied; empty means: change nothing."""

    steps: tuple[Step, ...] = ()
    rationale: str = ""

    def __str__(self) -> str:
        return " + ".join(str(step) for step in self.steps) or "leave as it is"


def _short(value: Setting) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
