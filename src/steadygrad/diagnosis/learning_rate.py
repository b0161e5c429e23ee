"""SG501, SG502: optimizer steps too large or too small for the weights they move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Role, Severity, Symptom

__all__ = ["RULES"]

# TheDeepChecker (Ben Braiek and Khomh, TOSEM 2022) holds [1e-4, 1e-1] for healthy ratios during training. A first step
# of Adam on a wide layer lies above 0.1 and trains well, so that we warn from 0.5 on.
LARGE_WARNING, LARGE_ERROR = 0.5, 5.0
# Over the whole planned training, moving in one direction: weights cannot change by more than 1 %.
REACH_WARNING, REACH_ERROR = 1e-2, 1e-4


def too_large(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the median update-to-weight ratio with the upper limits."""
    ratios = _ratios(blueprint, observation)
    if ratios and (ratio := median(ratios.values())) >= LARGE_WARNING:
        worst = max(ratios, key=ratios.__getitem__)
        yield Found(
            Severity.ERROR if ratio >= LARGE_ERROR else Severity.WARNING,
            f"one {blueprint.optimizer} step changes weights by {ratio:.1e} of their size (median of "
            f"{len(ratios)} layers; {ratios[worst]:.1e} at {worst})",
            None,
            {"update_ratio": ratio, "worst": ratios[worst], **_rate(blueprint)},
        )


def too_small(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the way that all planned steps can go at most with the size of the weights."""
    ratios = _ratios(blueprint, observation)
    ratio = max(ratios.values(), default=0.0)
    if ratio == 0.0:
        return  # no gradient arrives at all: not the learning rate's fault
    momentum = min(blueprint.optimizer_settings.get("momentum", 0.0), 0.999)
    reach = ratio * blueprint.steps / (1 - momentum)
    if reach <= REACH_WARNING:
        yield Found(
            Severity.ERROR if reach <= REACH_ERROR else Severity.WARNING,
            f"{blueprint.steps} steps like the first move no layer by more than {reach:.1e} of its size: too slow for "
            "the steps planned",
            None,
            {"update_ratio": ratio, "reach": reach, **_rate(blueprint)},
        )


def _ratios(blueprint: Blueprint, observation: Observation) -> dict[str, float]:
    """Return the update-to-weight ratio of each weight layer, without what only the very first step has.

    RMSprop's average of squares starts at 0 and is not corrected for it (Kingma and Ba 2015, sec. 3 and 5): its first
    step is ``1 / sqrt(1 - alpha)`` times as large as one like it later on.
    """
    alpha = blueprint.optimizer_settings.get("alpha", 0.0) if blueprint.optimizer == "RMSprop" else 0.0
    first = 1 / math.sqrt(1 - min(alpha, 0.9999))
    return {
        layer.name: stats.update_ratio / first
        for layer, stats in zip(blueprint.layers, observation.layers, strict=True)
        if stats.update_ratio is not None and layer.role in (Role.LINEAR, Role.RECURRENT, Role.ATTENTION)
    }


def _rate(blueprint: Blueprint) -> dict[str, float]:
    return {"lr": blueprint.optimizer_settings["lr"]} if "lr" in blueprint.optimizer_settings else {}


RULES = (
    Rule(
        "SG501",
        "steps too large",
        Symptom.LEARNING_RATE,
        "One step of the optimizer moves the weights by about their own size: the training jumps instead of "
        "descending.",
        "median over weight layers of rms(step) / rms(W) at the first step >= 0.5 (warning), >= 5 (error); for RMSprop "
        "times sqrt(1 - alpha).",
        "TheDeepChecker (Ben Braiek and Khomh, TOSEM 2022) holds [1e-4, 1e-1] for healthy in training; raised by own "
        "choice for first steps of Adam. RMSprop's first step is too large for want of a bias correction (Kingma and "
        "Ba 2015, sec. 5).",
        "Lower the learning rate (a search over short runs finds one), warm it up, or clip by global norm.",
        too_large,
    ),
    Rule(
        "SG502",
        "steps too small",
        Symptom.LEARNING_RATE,
        "All planned steps together can hardly move the weights.",
        "max over weight layers of rms(step) / rms(W) * steps / (1 - momentum) <= 1e-2 (warning), <= 1e-4 (error), "
        "RMSprop's first step corrected as in SG501.",
        "Definition of the reach; thresholds are own choices.",
        "Raise the learning rate, use an adaptive optimizer, or plan more steps.",
        too_small,
    ),
)
