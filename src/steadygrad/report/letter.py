"""The sentences of a report, the same on the terminal and on the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from steadygrad.records import Diagnosis, Finding, Part, Prescription, Severity, Trial, Verdict
from steadygrad.report.tables import layer_name, number, plain, score

__all__ = [
    "CODE",
    "FINDINGS_SHOWN",
    "VERDICTS",
    "alarm_headline",
    "code",
    "facts",
    "foretold",
    "headline",
    "left_out",
    "mattered",
    "recommendation",
    "tried",
    "where",
]

CODE = "In Python, with `import steadygrad as sg`:"  # stands before it
FINDINGS_SHOWN = 50  # a network of 10,000 sick layers must still fit a page

VERDICTS = {
    Verdict.HEALTHY: "Healthy: the set-up learns as it is; nothing needs to change.",
    Verdict.CURED: "Cured: better on every seed, and up to the goal.",
    Verdict.IMPROVED: "Improved: better on every seed, but short of a goal or without one to hold it against.",
    Verdict.NOT_CURED: "Not cured: nothing that was tried made training better on every seed.",
}


def headline(diagnosis: Diagnosis) -> str:
    """Return the diagnosis in a few words, as ``2 findings: 1 error, 1 warning``."""
    parts = _tally(diagnosis.findings)
    if diagnosis.healthy:
        return f"Healthy: {parts[0]}, no warning" if parts else "Healthy: no findings"
    return f"{_count(len(diagnosis.findings), 'finding')}: {', '.join(parts)}" if len(parts) > 1 else parts[0]


def alarm_headline(findings: Sequence[Finding]) -> str:
    """Return the alarms of a run in a few words, as ``2 alarms: 1 error, 1 note``."""
    return f"{_count(len(findings), 'alarm')}: {', '.join(_tally(findings))}" if findings else "No alarms"


def _tally(findings: Sequence[Finding]) -> list[str]:
    """Return how many there are of each severity, worst first."""
    tally = Counter(finding.severity for finding in findings)
    return [_count(tally[severity], severity.label) for severity in sorted(Severity, reverse=True) if tally[severity]]


def where(diagnosis: Diagnosis) -> str:
    """Return the sentence that names the guilty layer; empty if no layer is to blame."""
    if diagnosis.guilty is None:
        return ""
    share = "" if diagnosis.confidence is None else f", which alone explains {diagnosis.confidence:.0%} of it"
    return f"The trouble starts at {layer_name(diagnosis.guilty)}{share}."


def foretold(diagnosis: Diagnosis) -> str:
    """Return the forecast in a sentence; empty without one."""
    told = diagnosis.forecast
    if told is None:
        return ""
    reasons = f": {'; '.join(told.reasons)}" if told.reasons else ""
    cost = f"{_count(told.steps, 'real step')} on a copy"
    return f"Forecast: {told.prospect.value}, {told.probability:.0%} likely to fail, after {cost}{reasons}."


def facts(diagnosis: Diagnosis) -> str:
    """Return one line that says what was looked at."""
    blueprint, observation = diagnosis.blueprint, diagnosis.observation
    settings = ", ".join(f"{plain(key, 40)}={value:.4g}" for key, value in blueprint.optimizer_settings.items())
    parts = (
        _count(len(observation.layers), "layer call"),
        _count(blueprint.parameters, "parameter"),
        f"loss {plain(blueprint.loss, 60)}" if blueprint.loss else "",
        f"{plain(blueprint.optimizer, 60)}({settings})" if blueprint.optimizer else "",
        f"batch of {blueprint.batch:,}",
        f"loss value {number(observation.loss)}",
        f"gradient norm {number(observation.grad_norm)}",
    )
    return " · ".join(part for part in parts if part)


def left_out(findings: Sequence[Finding]) -> str:
    """Return the sentence that says how many findings are not shown; empty if all are."""
    hidden = len(findings) - FINDINGS_SHOWN
    return f"… {_count(hidden, 'finding')} left out." if hidden > 0 else ""


def tried(trials: Sequence[Trial]) -> str:
    """Return how much was tried and at what cost."""
    if not trials:
        return "Nothing was tried."
    cost = sum(trial.cost for trial in trials)
    count = sum(bool(trial.prescription.steps) for trial in trials)  # the set-up as it came is no try
    return f"{_count(count, 'prescription')} tried, {_count(cost, 'optimizer step')} in all."


def recommendation(prescription: Prescription | None) -> list[str]:
    """Return one line a remedy with the findings it answers."""
    if prescription is None or not prescription.steps:
        return ["Leave the set-up as it is."]
    lines = []
    for step in prescription.steps:
        answers = f" (answers {', '.join(map(plain, step.answers))})" if step.answers else ""
        lines.append(f"{plain(str(step))}{answers}")
    return lines


def mattered(parts: Sequence[Part]) -> list[str]:
    """Return one line a part of a combination: the score with and without it, and whether it was left out."""
    lines = []
    for part in parts:
        without = score(part.without) if math.isfinite(part.without) else "diverged"
        scores = f"{without} in place of {score(part.whole)}"
        ending = ": not needed, left out" if part.dropped else ""
        lines.append(f"without {plain(str(part.step))}: {scores} after {part.steps} steps{ending}")
    return lines


def code(prescription: Prescription | None) -> str:
    """Return Python that makes the recommended change to ``setup``; empty if nothing is to be changed."""
    if prescription is None or not prescription.steps:
        return ""
    steps = "".join(f"    sg.Step({step.remedy!r}, {dict(step.settings)!r}),\n" for step in prescription.steps)
    return f"cured = sg.apply(sg.Prescription((\n{steps})), setup)"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
