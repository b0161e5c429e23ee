"""A rule: a code, what it means, and a function from measurements to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from steadygrad.records import Blueprint, Finding, Observation, Severity, Symptom

__all__ = ["Found", "Rule"]


@dataclass(frozen=True)
class Found:
    """What a rule's check says of one place; the rule adds code, symptom and advice."""

    severity: Severity
    message: str
    layer: str | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 1.0


@dataclass(frozen=True)
class Rule:
    """One thing to look for.

    Attributes:
        code: Stable code, ``SG101``.
        title: A few words.
        symptom: What kind of trouble it finds.
        meaning: What the finding means for the training.
        threshold: Formula and threshold in words.
        source: Where the threshold comes from.
        advice: What to do.
        check: Yields what it finds in one blueprint and one observation.
    """

    code: str
    title: str
    symptom: Symptom
    meaning: str
    threshold: str
    source: str
    advice: str
    check: Callable[[Blueprint, Observation], Iterator[Found]]

    def findings(self, blueprint: Blueprint, observation: Observation) -> list[Finding]:
        """Return what the rule finds."""
        return [
            Finding(
                code=self.code,
                symptom=self.symptom,
                severity=found.severity,
                message=found.message,
                advice=self.advice,
                layer=found.layer,
                evidence=found.evidence,
                confidence=found.confidence,
            )
            for found in self.check(blueprint, observation)
        ]
