"""When a finding becomes an alarm (once, until it has gone for a while), and who is told."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steadygrad.errors import AlarmError, SteadygradWarning
from steadygrad.monitor.sinks import finding_event
from steadygrad.records import Finding, Severity

__all__ = ["AlarmGate", "Alarms", "Sink", "logger"]

logger = logging.getLogger("steadygrad")

Sink = Callable[[Mapping[str, Any]], None]

MOST_FINDINGS = 1000
LEVELS = {Severity.NOTE: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}


@dataclass
class _State:
    severity: Severity
    told: int
    absent: int = 0


class AlarmGate:
    """Let a finding through when it is new, and again when it returns or gets worse.

    Args:
        clear_after: A finding that so many judgements in a row did not make is over (hysteresis).
        cool_down: One that returns is told again only so many steps after the last time.

    Example:
        >>> from steadygrad.records import Finding, Severity, Symptom
        >>> gate = AlarmGate(clear_after=2, cool_down=100)
        >>> spike = Finding("SG503", Symptom.EXPLODING, Severity.WARNING, "it jumps", "clip")
        >>> [len(gate.passing(found, step)) for step, found in enumerate([[spike], [spike], [], [], [spike]])]
        [1, 0, 0, 0, 0]
        >>> [len(gate.passing(found, step)) for step, found in enumerate([[], [], [spike]], start=200)]
        [0, 0, 1]
    """

    def __init__(self, clear_after: int = 3, cool_down: int = 300) -> None:
        self._clear_after, self._cool_down = clear_after, cool_down
        self._states: dict[str, _State] = {}

    def passing(self, findings: Iterable[Finding], step: int, judged: Collection[str] = ()) -> list[Finding]:
        """Return those of a step's findings that are to be told; ``judged`` are the rules asked, all if empty."""
        passed, present = [], set()
        for finding in findings:
            present.add(finding.code)
            state = self._states.get(finding.code)
            if state is not None:
                over = state.absent >= self._clear_after and step - state.told >= self._cool_down
                state.absent = 0
                if not over and finding.severity <= state.severity:
                    continue
            self._states[finding.code] = _State(finding.severity, step)
            passed.append(finding)
        for code, state in self._states.items():
            if code not in present and (not judged or code in judged):
                state.absent += 1
        return passed


class Alarms:
    """Tell findings to the log or a callable, and looks and findings to sinks. What raises is called no more.

    Args:
        on_alarm: ``"log"``, ``"raise"`` or a callable.
        sinks: Callables that get plain data.

    Attributes:
        findings: All that were told, up to a thousand.
    """

    def __init__(self, on_alarm: str | Callable[[Finding], None], sinks: Sequence[Sink]) -> None:
        self.findings: list[Finding] = []
        self._on_alarm, self._sinks = on_alarm, tuple(sinks)
        self._gate = AlarmGate()
        self._silenced: list[Callable[[Any], Any]] = []
        self._error: AlarmError | None = None

    def look(self, event: Mapping[str, Any]) -> None:
        """Hand a look to the sinks."""
        for sink in self._sinks:
            self._call(sink, event)

    @property
    def has_sinks(self) -> bool:
        """Whether anything wants to hear of looks."""
        return bool(self._sinks)

    def judge(self, findings: Iterable[Finding], step: int, judged: Collection[str] = ()) -> None:
        """Tell those of a look's findings that are new; ``judged`` are the rules that were asked, all if empty."""
        for finding in self._gate.passing(findings, step, judged):
            self.tell(finding, step)

    def tell(self, finding: Finding, step: int) -> None:
        """Tell a finding."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)
        for sink in self._sinks:
            self._call(sink, finding_event(finding, step))
        if callable(self._on_alarm):
            self._call(self._on_alarm, finding)
            return
        sentence = f"step {step}: {finding.code} {finding.message}. {finding.advice}"
        logger.log(LEVELS[finding.severity], sentence)
        if self._on_alarm == "raise" and finding.severity is Severity.ERROR:
            self._error = AlarmError(sentence)

    def raise_if_asked(self) -> None:
        """Raise the last error that was told, if that was asked for.

        Raises:
            AlarmError: With the sentence that was logged.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _call(self, function: Callable[[Any], Any], value: Any) -> None:
        """Call what the user gave; if it raises, warn once and call it no more."""
        if function in self._silenced:
            return
        try:
            function(value)
        except Exception as error:
            self._silenced.append(function)
            warnings.warn(
                f"Monitor: expected {getattr(function, '__name__', type(function).__name__)} to take an event, got "
                f"{type(error).__name__}: {error}. It is called no more.",
                SteadygradWarning,
                stacklevel=2,
            )
