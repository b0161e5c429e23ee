"""What a rule found, and the diagnosis that all rules together make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from steadygrad.records.blueprint import Blueprint
from steadygrad.records.forecast import Forecast
from steadygrad.records.observation import Observation

__all__ = ["Diagnosis", "Finding", "Severity", "Symptom"]


class Symptom(StrEnum):
    """What is wrong; remedies say which symptoms they treat."""

    VANISHING = "vanishing"
    EXPLODING = "exploding"
    NONFINITE = "non-finite"
    DISCONNECTED = "disconnected"
    DEAD_UNITS = "dead units"
    SATURATION = "saturation"
    INITIALIZATION = "initialization"
    LEARNING_RATE = "learning rate"
    WIRING = "wiring"
    DATA = "data"


class Severity(IntEnum):
    """How bad a finding is; ordered."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def label(self) -> str:
        """The lower-case name, as the command line spells it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        code: Stable rule code, ``SG101``.
        symptom: What kind of trouble it is.
        severity: How bad.
        layer: Name of the layer it is about; None if it is about the whole set-up.
        message: One sentence, rendered from the evidence.
        advice: What to do about it, one sentence.
        evidence: The numbers behind it.
        confidence: Share of the trouble that ``layer`` alone explains, in [0, 1].
    """

    code: str
    symptom: Symptom
    severity: Severity
    message: str
    advice: str
    layer: str | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one batch says about a set-up, and a handful of steps if a forecast was asked for.

    ``findings`` stand worst first.
    """

    findings: tuple[Finding, ...]
    observation: Observation
    blueprint: Blueprint
    forecast: Forecast | None = None

    @property
    def healthy(self) -> bool:
        """Whether no finding is a warning or worse."""
        return all(finding.severity < Severity.WARNING for finding in self.findings)

    @property
    def main(self) -> Finding | None:
        """The worst finding that names a layer; None if there is none."""
        named = [f for f in self.findings if f.layer is not None and f.severity >= Severity.WARNING]
        return named[0] if named else None

    @property
    def guilty(self) -> str | None:
        """Name of the layer where the worst trouble starts; None in a healthy network."""
        return self.main.layer if self.main else None

    @property
    def confidence(self) -> float | None:
        """Share of that trouble which the guilty layer alone explains; near 1/n where n layers fail alike."""
        return self.main.confidence if self.main else None

    def harmless(self) -> Diagnosis:
        """Return the diagnosis of a set-up that learns all the same: its warnings and errors are notes, and say so."""
        notes = (
            replace(
                finding,
                severity=Severity.NOTE,
                message=f"{finding.message} (does no harm here: the training gets over it)",
            )
            if finding.severity >= Severity.WARNING
            else finding
            for finding in self.findings
        )
        return replace(self, findings=tuple(notes))
