"""SG301 to SG303: units that are switched off, stuck at a bound, or dropped."""

from __future__ import annotations

from collections.abc import Iterator

from steadygrad.diagnosis.profile import bypassed
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Layer, Observation, Severity, Symptom

__all__ = ["RULES"]

# DeepDiagnosis alarms at a share of 0.7, AUTOTRAINER (Zhang et al., ICSE 2021) at 0.7 of gradient entries, SageMaker
# at 0.5. In healthy deep ReLU nets near half of all units are off for a whole batch, so that we warn at 0.75.
DEAD_WARNING, DEAD_ERROR = 0.75, 0.98
# DeepDiagnosis (Wardat et al., ICSE 2022): over half of the entries beyond the bounds.
SATURATED_WARNING, SATURATED_ERROR = 0.5, 0.9
# Srivastava et al. 2014, sec. 7.3 and fig. 9: the flat range of error ends at a fifth of the units kept or before.
DROPPED = 0.8


def dead_units(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find activations most of whose units are zero for every sample."""
    yield from _worst(blueprint, observation, "dead_fraction", DEAD_WARNING, DEAD_ERROR, "units are 0 for every sample")


def saturated_units(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find bounded activations most of whose outputs lie on a bound."""
    what = "outputs lie on a bound, where the slope is next to 0"
    yield from _worst(blueprint, observation, "saturated_fraction", SATURATED_WARNING, SATURATED_ERROR, what)


def dropped_units(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find dropout that leaves hardly any hidden unit; on inputs, where nothing comes before it, it may be meant."""
    found = [layer for layer in blueprint.layers if layer.follows and layer.dropout >= DROPPED]
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} layers more)" if len(found) > 1 else ""
        yield Found(
            Severity.WARNING,
            f"{first.name} ({first.kind}) drops {first.dropout:.0%} of the hidden units in every step{more}",
            first.name,
            {"dropout": first.dropout, "layers": len(found)},
            1.0 / len(found),
        )


def _worst(
    blueprint: Blueprint, observation: Observation, statistic: str, warning: float, error: float, what: str
) -> Iterator[Found]:
    aside = bypassed(blueprint)
    shares = [
        (layer, share)
        for position, layer in enumerate(blueprint.layers)
        if position != blueprint.head_layer
        and position not in aside
        and (share := getattr(observation.layers[position], statistic)) is not None
        and share >= warning
        and not _constant_input(layer, observation)
    ]
    if not shares or blueprint.batch < 2:
        return
    layer, share = shares[0]
    more = f" (and {len(shares) - 1} layers more)" if len(shares) > 1 else ""
    yield Found(
        Severity.ERROR if max(s for _, s in shares) >= error else Severity.WARNING,
        f"{share:.0%} of {layer.name} ({layer.kind}): {what}{more}",
        layer.name,
        {statistic: share, "layers": len(shares)},
        1.0 / len(shares),
    )


def _constant_input(layer: Layer, observation: Observation) -> bool:
    """Whether nothing that tells samples apart comes in: the fault lies before this layer."""
    signals = [observation.layers[source].signal for source in layer.follows]
    return bool(signals) and all(signal == 0.0 for signal in signals)


RULES = (
    Rule(
        "SG301",
        "dead units",
        Symptom.DEAD_UNITS,
        "Units that are 0 for every sample get no gradient and may never come back.",
        "Share of a rectifier's units that are exactly 0 over the whole batch >= 0.75 (warning), >= 0.98 (error). "
        "Layers that get the same for every sample, and ends of residual branches, do not count.",
        "AUTOTRAINER (Zhang et al. 2021) and DeepDiagnosis (Wardat et al. 2022) use 0.7; raised to 0.75 because "
        "healthy deep ReLU nets come near 0.5.",
        "Lower the learning rate, redraw the weights with zero biases, or use a leaky or smooth activation.",
        dead_units,
    ),
    Rule(
        "SG302",
        "saturated units",
        Symptom.SATURATION,
        "Units stuck near a bound of their activation have a slope near 0 and pass no gradient.",
        "Share of outputs where the slope is below 2.5 % of the steepest >= 0.5 (warning), >= 0.9 (error). Ends of "
        "residual branches and gates do not count.",
        "DeepDiagnosis (Wardat et al., ICSE 2022): inputs of a sigmoid beyond +-5 for over half of the entries; the "
        "same slope for other functions (tanh: beyond +-2.5).",
        "Shrink the weights before it (initialization for that activation) or standardize the inputs.",
        saturated_units,
    ),
    Rule(
        "SG303",
        "hardly any unit kept by dropout",
        Symptom.WIRING,
        "What the few units that are left say changes so much from step to step that hardly anything is learned.",
        "A dropout module behind another layer with p >= 0.8.",
        "Srivastava et al. 2014, Dropout, sec. 7.3 and fig. 9: with few units kept the training error rises too, the "
        "network underfits. The limit is an own choice.",
        "Lower the rate; 0.1 to 0.5 are usual. If p was meant as the share that is kept, use 1 - p.",
        dropped_units,
    ),
)
