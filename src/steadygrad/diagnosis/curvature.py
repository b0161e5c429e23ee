"""SG519, SG520: a learning rate beyond what the curvature allows, or too small to lower the loss; from real steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Severity, Symptom

__all__ = ["RULES"]

# Along a step d the loss changes by g.d + d.Hd / 2 to second order: it rises if d.Hd / 2 exceeds -g.d. For a step of
# gradient descent that is lr > 2 / curvature along it (Cohen et al. 2021, sec. 2).
STABLE = 1.0
# All planned steps together, each as good as the median of the first ones. Healthy set-ups of the zoo's development
# split come to 1 and more.
LEAST_FALL = 0.1


def too_curved(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find first steps that raise the loss of their own batches, though the gradient promised a fall."""
    outlook = observation.outlook
    if outlook is None or outlook.after < outlook.before:
        return
    ratios = [1 - change / linear for linear, change in zip(outlook.linear, outlook.changes, strict=True) if linear < 0]
    if beyond := [ratio for ratio in ratios if ratio >= STABLE]:
        yield Found(
            Severity.ERROR,
            f"{len(beyond)} of the first {len(ratios)} steps raise the loss of their own batches, and it does not come "
            "down again: the learning rate lies beyond 2 / curvature"
            + (f", up to {max(beyond):.2g} times" if max(beyond) < math.inf else ""),
            None,
            {"overshoot": beyond[0], "steps": len(beyond), **_rate(blueprint)},
        )


def too_flat(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find first steps so small that all planned ones together would hardly lower the loss."""
    outlook = observation.outlook
    if outlook is None or not outlook.linear or not 0 < abs(outlook.before) < math.inf:
        return
    momentum = min(blueprint.optimizer_settings.get("momentum", 0.0), 0.999)
    fall = median(-linear for linear in outlook.linear) / abs(outlook.before) * blueprint.steps / (1 - momentum)
    if 0 < fall <= LEAST_FALL:
        yield Found(
            Severity.WARNING,
            f"{blueprint.steps} steps like the first ones would lower the loss by {fall:.1%} of itself: the learning "
            "rate is too small for the steps planned, or the gradient for the rate",
            None,
            {"fall": fall, **_rate(blueprint)},
        )


def _rate(blueprint: Blueprint) -> dict[str, float]:
    return {"lr": blueprint.optimizer_settings["lr"]} if "lr" in blueprint.optimizer_settings else {}


RULES = (
    Rule(
        "SG519",
        "learning rate beyond the curvature",
        Symptom.LEARNING_RATE,
        "Steps are so long that the loss rises along the very gradient they follow: the training diverges, or is "
        "thrown about.",
        "1 - (change of the batch's loss) / (gradient times step) >= 1 for one of the first 5 real steps on a copy, "
        "and the forecast's samples have no lower loss after 20. Needs a forecast.",
        "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, sec. 2: a "
        "step beyond 2 / curvature raises a quadratic loss. Here the curvature along the step itself, so that it "
        "holds for every optimizer.",
        "Divide the learning rate by twice the overshoot, warm it up, or clip by global norm.",
        too_curved,
    ),
    Rule(
        "SG520",
        "learning rate too small to lower the loss",
        Symptom.LEARNING_RATE,
        "At this pace the planned steps end where they began.",
        "Median over the first 5 real steps of -(gradient times step) / loss, times the planned steps over "
        "(1 - momentum), <= 0.1. Needs a forecast.",
        "First-order change of the loss (Nocedal and Wright 2006, sec. 3.1, sufficient decrease); the limit is an own "
        "choice, a tenth of what the slowest healthy set-up of the zoo's development split reaches.",
        "Raise the learning rate, use an adaptive optimizer, or look for what shrinks the gradient (clipping, a scaled "
        "loss).",
        too_flat,
    ),
)
