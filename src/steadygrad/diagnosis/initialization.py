"""SG401, SG402: weights drawn at the wrong scale, or all alike."""

from __future__ import annotations

import math
from collections.abc import Iterator

from steadygrad.diagnosis.profile import bypassed, paths, trend
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.errors import UsageError
from steadygrad.records import Blueprint, Observation, Role, Severity, Symptom
from steadygrad.signals.meanfield import gain

__all__ = ["RULES"]

# A layer ten times off its fan rule, or all layers together a hundredfold; own calibration, docs/diagnosis.md.
ONE_LAYER_DECADES, ALL_LAYERS_DECADES, ERROR_DECADES = 1.0, 2.0, 4.0
# It counts if signal or gradient really change by this share of it: residual connections and normalization forgive it.
FELT = 0.5


def scale(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the RMS of each weight with ``gain / sqrt(fan_in)`` for the activation that follows."""
    off = _decades_off(blueprint, observation)
    trends = [
        found
        for path in paths(blueprint, observation)
        for backward in (True, False)
        if (found := trend(path, backward, growing=False)) is not None
    ]
    if not off or not trends:
        return
    total = sum(off.values())
    worst = max(off, key=lambda name: abs(off[name]))
    alone = abs(off[worst]) >= ONE_LAYER_DECADES and any(_felt(off[worst], t.own.get(worst, 0.0)) for t in trends)
    together = abs(total) >= ALL_LAYERS_DECADES and any(_felt(total, t.decades) for t in trends)
    if not alone and not together:
        return
    if not alone:
        worst = next(name for name, own in off.items() if own * total > 0 and 2 * abs(own) > abs(total) / len(off))
    size = "small" if off[worst] < 0 else "large"
    over = f"; over {len(off)} layers the signal changes {10**total:.0e}-fold by this alone" if together else ""
    yield Found(
        Severity.ERROR if together and abs(total) >= ERROR_DECADES else Severity.WARNING,
        f"the weights of {worst} are {10 ** abs(off[worst]):.2g} times too {size} for what follows{over}",
        worst,
        {"ratio": 10 ** off[worst], "decades": total, "layers": len(off)},
        abs(off[worst]) / sum(abs(decades) for decades in off.values()),
    )


def _decades_off(blueprint: Blueprint, observation: Observation) -> dict[str, float]:
    """Return by layer how far weights are off their fan rule.

    Left out: layers before a normalization, which may have any scale, and branches of residual sums drawn small, as
    they should be in deep nets.
    """
    off: dict[str, float] = {}
    aside, seen = bypassed(blueprint), set()
    for position, layer in enumerate(blueprint.layers):
        weight, fan_in = observation.layers[position].weight, layer.fan_in or 0
        judged = layer.role is Role.LINEAR and not layer.normalized and layer.trainable and layer.module not in seen
        # A fan-in of 1 is a scale a channel (LayerScale), not a sum over inputs.
        if judged and fan_in > 1 and weight is not None and weight.rms > 0:
            seen.add(layer.module)
            decades = math.log10(weight.rms * math.sqrt(fan_in) / _gain(layer.activation))
            if decades > 0 or position not in aside:
                off[layer.name] = decades
    return off


def _felt(expected: float, measured: float) -> bool:
    return measured * expected > 0 and abs(measured) >= FELT * abs(expected)


def symmetry(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find weight matrices whose entries are all the same number."""
    for layer, stats in zip(blueprint.layers, observation.layers, strict=True):
        weight = stats.weight
        # A vector of ones in two dimensions (a hand-written normalization) has no units to keep apart.
        if layer.role is not Role.LINEAR or weight is None or min(layer.fan_in or 1, layer.fan_out or 1) < 2:
            continue
        if weight.abs_max > 0 and math.isclose(abs(weight.mean), weight.abs_max, rel_tol=1e-6):
            yield Found(
                Severity.ERROR,
                f"all {weight.numel} weights of {layer.name} are {weight.mean:.3g}: its units stay alike",
                layer.name,
                {"value": weight.mean, "numel": weight.numel},
            )


def _gain(activation: str | None) -> float:
    """Return the gain for the activation; 1 where none follows or it is not elementwise (softmax)."""
    if activation is None:
        return 1.0
    try:
        return gain(activation)
    except UsageError:
        return 1.0


RULES = (
    Rule(
        "SG401",
        "initialization scale",
        Symptom.INITIALIZATION,
        "Weights are too small or too large for the activation that follows, so that the signal fades or grows with "
        "depth.",
        "log10(rms(W) * sqrt(fan_in) / gain) of one layer beyond +-1, or summed over all layers beyond +-2 (warning), "
        "+-4 (error), where signal or gradient really change by half of that. Layers before a normalization, and "
        "residual branches drawn small, do not count.",
        "Glorot and Bengio 2010; He et al. 2015, sec. 2.2. Thresholds: own calibration, docs/diagnosis.md.",
        "Initialize with the gain of the activation that follows (He for ReLU, Xavier for tanh), or by LSUV.",
        scale,
    ),
    Rule(
        "SG402",
        "identical weights",
        Symptom.INITIALIZATION,
        "All weights of a layer are one number, so its units compute the same and stay the same.",
        "rms(W) = |mean(W)| = max|W| > 0.",
        "Definition (symmetry; Goodfellow et al. 2016, sec. 8.4).",
        "Draw the weights at random.",
        symmetry,
    ),
)
