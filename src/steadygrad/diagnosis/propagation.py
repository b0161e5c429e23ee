"""SG101, SG102, SG201, SG202: gradients and signals that fade or grow with depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from steadygrad.diagnosis.profile import paths, trend
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Severity, Symptom

__all__ = ["RULES"]

# Decades over the whole depth. Our own calibration (docs/diagnosis.md): of the networks that train with SGD and with
# Adam none lost more than 2.1 decades or gained more than 1.9, over two seeds; beyond 3 either way all fail.
FADING_WARNING, GROWING_WARNING, ERROR_DECADES = 2.3, 2.0, 3.0


def change(blueprint: Blueprint, observation: Observation, *, backward: bool, growing: bool) -> Iterator[Found]:
    """Compare where the gradient (or the signal) sets out with where it arrives, on the path where they differ most."""
    trends = [found for path in paths(blueprint, observation) if (found := trend(path, backward, growing)) is not None]
    if not trends:
        return
    worst = max(trends, key=lambda found: found.decades if growing else -found.decades)
    if worst.decades < GROWING_WARNING if growing else worst.decades > -FADING_WARNING:
        return
    if worst.decades == -math.inf and backward and math.isinf(worst.own.get(worst.layer, 0.0)):
        return  # one layer passes on exactly 0: SG104 names it
    what = "gradient" if backward else "signal"
    start, place = ("output", worst.place) if backward else ("input", worst.place)
    rate = f", by a factor of {10 ** (worst.decades / worst.steps):.2g} a layer" if math.isfinite(worst.decades) else ""
    where = f"most of it at {worst.layer}" if worst.share > 0.5 else f"from {worst.layer} on"
    yield Found(
        Severity.ERROR if abs(worst.decades) >= ERROR_DECADES else Severity.WARNING,
        f"the {what} {'grows' if growing else 'falls'} from {worst.start:.1e} at the {start} to {worst.end:.1e} at "
        f"{place}{rate} over {worst.steps} layers, {where}",
        worst.layer,
        {
            "decades": worst.decades,
            "own_gain": worst.gain,
            "start": worst.start,
            "end": worst.end,
            "layers": worst.steps,
        },
        worst.share,
    )


RULES = (
    Rule(
        "SG101",
        "vanishing gradient",
        Symptom.VANISHING,
        "The loss gradient shrinks on its way from the output to the input, so that the first layers hardly learn.",
        "log10(gradient norm at the first weight layer / at the output) <= -2.3 (warning), <= -3 (error); the gradient "
        "is taken with respect to layer outputs and per sample.",
        "Glorot and Bengio 2010; Pascanu et al. 2013. Activation gradients and not weight gradients, whose ratio stays "
        "flat in a mis-scaled ReLU net. Thresholds: own calibration, docs/diagnosis.md.",
        "Initialize for the activation in use, replace saturating activations, or add normalization or residual "
        "connections.",
        partial(change, backward=True, growing=False),
    ),
    Rule(
        "SG102",
        "vanishing signal",
        Symptom.VANISHING,
        "The network's answer hardly depends on its input: deviations between samples fade with depth, even where the "
        "outputs themselves keep their size (sigmoid).",
        "log10(RMS deviation over the batch at the output / at the input of the first weight layer) <= -2.3 (warning), "
        "<= -3 (error).",
        "Poole et al. 2016, Schoenholz et al. 2017 (correlation of inputs with depth). Thresholds: own calibration, "
        "docs/diagnosis.md.",
        "Initialize for the activation in use (with biases that center it), or add normalization or residual "
        "connections.",
        partial(change, backward=False, growing=False),
    ),
    Rule(
        "SG201",
        "exploding gradient",
        Symptom.EXPLODING,
        "The loss gradient grows on its way from the output to the input: one step throws the first layers far away.",
        "log10(largest gradient norm at a layer / at the output) >= 2 (warning), >= 3 (error).",
        "Pascanu et al. 2013; Hanin 2018. BatchNorm in deep plain nets does this too (Yang et al. 2019). Thresholds: "
        "own calibration, docs/diagnosis.md.",
        "Initialize for the activation in use; clip by global norm against spikes; scale residual branches by "
        "1/sqrt(depth).",
        partial(change, backward=True, growing=True),
    ),
    Rule(
        "SG202",
        "exploding signal",
        Symptom.EXPLODING,
        "Activations grow with depth, until the loss overflows or every unit saturates.",
        "log10(largest RMS deviation over the batch at a layer / at the input of the first weight layer) >= 2 "
        "(warning), >= 3 (error).",
        "He et al. 2015, eq. 9 and 10. Thresholds: own calibration, docs/diagnosis.md.",
        "Initialize for the activation in use, or add normalization.",
        partial(change, backward=False, growing=True),
    ),
)
