"""Foretell from findings and a handful of real steps whether a training will come to something.

A logistic regression over features that have no units. Weights and thresholds were fitted on the development split of
``benchmarks/zoo`` by ``python benchmarks/forecast.py --fit``; the held-out split has other data sets, other families of
networks and other faults.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, median

from steadygrad.diagnosis.profile import paths, trend
from steadygrad.records import (
    Blueprint,
    Finding,
    Forecast,
    Observation,
    Outlook,
    Prospect,
    Severity,
    Symptom,
)

__all__ = ["CERTAIN", "INTERCEPT", "WEIGHTS", "features", "forecast"]

# Between these probabilities of failing the answer is "unsure".
CERTAIN = (0.1, 0.9)
INTERCEPT = -0.298
WEIGHTS = {
    "score": -1.085,
    "gain": -0.740,
    "drop": 0.001,
    "trend": -0.747,
    "outlook": -1.024,
    "diverged": 0.782,
    "rough": 1.298,
    "errors": 2.064,
    "warnings": 1.394,
    "wiring": 1.043,
    "fading": 0.559,
    "growing": 0.468,
    "large_steps": -0.620,
    "small_steps": 0.731,
    "few_steps": 0.436,
}
REASONS = {
    "score": ("the first steps lift the score well above chance", "the first steps leave the score at chance"),
    "gain": ("the score rises in the first steps", "the score does not rise in the first steps"),
    "drop": ("the loss falls in the first steps", "the loss hardly falls in the first steps"),
    "trend": ("the loss keeps falling from step to step", "the loss does not fall from step to step"),
    "outlook": ("at this pace the planned steps suffice", "at this pace the planned steps do not suffice"),
    "diverged": ("the loss stays finite", "the loss rises or becomes non-finite in the first steps"),
    "rough": ("the steps are smooth", "the loss jumps from step to step"),
    "errors": ("there is no error among the findings", "there are errors among the findings"),
    "warnings": ("there is no warning among the findings", "there are warnings among the findings"),
    "wiring": ("loss, head and data fit together", "loss, head or data do not fit together"),
    "fading": ("signal and gradient keep their size", "signal or gradient fade with depth"),
    "growing": ("nothing grows with depth", "signal or gradient grow with depth"),
    "large_steps": ("steps are small beside the weights", "steps are large beside the weights"),
    "small_steps": ("steps are large enough to get somewhere", "all planned steps together move the weights little"),
    "few_steps": ("enough steps are planned", "few steps are planned"),
}
_MOST_REASONS = 3


def forecast(blueprint: Blueprint, observation: Observation, findings: Iterable[Finding]) -> Forecast | None:
    """Return what will become of the training; None without an outlook."""
    if observation.outlook is None:
        return None
    found = features(blueprint, observation, findings)
    shares = {name: WEIGHTS[name] * value for name, value in found.items() if name in WEIGHTS}
    probability = 1 / (1 + math.exp(-max(-30.0, min(30.0, INTERCEPT + sum(shares.values())))))
    prospect = Prospect.UNSURE
    if probability <= CERTAIN[0]:
        prospect = Prospect.TRAINS
    elif probability >= CERTAIN[1]:
        prospect = Prospect.FAILS
    fails = probability >= 0.5
    told = sorted(shares, key=lambda name: -shares[name] if fails else shares[name])
    reasons = tuple(REASONS[name][fails] for name in told if (shares[name] > 0) == fails)
    return Forecast(prospect, probability, reasons[:_MOST_REASONS], _cost(observation.outlook))


def _cost(outlook: Outlook) -> int:
    """Return the optimizer steps that were made."""
    return len(outlook.losses) + len(outlook.changes)


def features(blueprint: Blueprint, observation: Observation, findings: Iterable[Finding]) -> dict[str, float]:
    """Return what the forecast rests on: numbers without units, about within [-1, 1]."""
    outlook = observation.outlook
    assert outlook is not None
    findings = list(findings)
    fading, growing = _decades(blueprint, observation)
    ratios = [stats.update_ratio for stats in observation.layers if stats.update_ratio]
    ratio = median(ratios) if ratios else 1e-12
    momentum = min(blueprint.optimizer_settings.get("momentum", 0.0), 0.999)
    reach = max(ratios, default=1e-12) * blueprint.steps / (1 - momentum)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    warnings = [finding for finding in findings if finding.severity is Severity.WARNING]
    misfits = [f for f in (*errors, *warnings) if f.symptom in (Symptom.WIRING, Symptom.DATA)]
    return _moves(outlook, blueprint.steps) | {
        "errors": min(len(errors), 2) / 2,
        "warnings": min(len(warnings), 2) / 2,
        "wiring": float(bool(misfits)),
        "fading": min(fading, 6.0) / 6,
        "growing": min(growing, 6.0) / 6,
        "large_steps": _clipped(math.log10(ratio) + 2) if ratio > 1e-2 else 0.0,
        "small_steps": _clipped(-math.log10(reach) / 2) if reach < 1 else 0.0,
        "few_steps": _clipped(2 - math.log10(blueprint.steps)) if blueprint.steps < 100 else 0.0,
    }


def _moves(outlook: Outlook, planned: int) -> dict[str, float]:
    """Return how loss and score moved."""
    start, end = _share(outlook.score_before, outlook), _share(outlook.score_after, outlook)
    size = abs(outlook.before) if math.isfinite(outlook.before) and outlook.before else 1.0
    drop = _clipped((outlook.before - outlook.after) / size) if math.isfinite(outlook.after) else -1.0
    third = max(1, len(outlook.losses) // 3)
    early, late = fmean(outlook.losses[:third]), fmean(outlook.losses[-third:])
    falling = _clipped((early - late) / (abs(early) or 1.0)) if math.isfinite(early - late) else -1.0
    jumps = [abs(b - a) for a, b in zip(outlook.losses, outlook.losses[1:], strict=False)]
    rough = fmean(jumps) / size if jumps and all(map(math.isfinite, jumps)) else 1.0
    pace = planned / max(len(outlook.losses), 1)
    return {
        "score": end,
        "gain": _clipped(end - start),
        "drop": drop,
        "trend": falling,
        "outlook": _clipped(math.log10(max(pace * max(end, drop, 1e-4), 1e-3)) / 2),
        "diverged": float(drop < -0.1),
        "rough": min(rough, 1.0),
    }


def _share(score: float, outlook: Outlook) -> float:
    """Return where a score lies between chance and the best, -1 to 1; 0 where chance is not known."""
    if outlook.chance is None or outlook.chance >= 1:
        return 0.0
    return _clipped((score - outlook.chance) / (1 - outlook.chance)) if math.isfinite(score) else -1.0


def _decades(blueprint: Blueprint, observation: Observation) -> tuple[float, float]:
    """Return how far signal or gradient fade and grow at most, in decades."""
    fading = growing = 0.0
    for path in paths(blueprint, observation):
        for backward in (True, False):
            falls, rises = (trend(path, backward, growing=up) for up in (False, True))
            fading = max(fading, -falls.decades if falls else 0.0)
            growing = max(growing, rises.decades if rises else 0.0)
    return fading, growing


def _clipped(value: float) -> float:
    return max(-1.0, min(1.0, value)) if not math.isnan(value) else -1.0
