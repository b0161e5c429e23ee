"""SG60x: loss, head and targets that do not fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator

from steadygrad.diagnosis.profile import starts_at_zero
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Severity, Symptom
from steadygrad.signals.layers import canonical

__all__ = ["HEAD_RANGES", "REGRESSION_LOSSES", "RULES"]

# Losses that apply a softmax or sigmoid themselves and so want raw scores.
SCORE_LOSSES = frozenset({"cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"})
REGRESSION_LOSSES = frozenset({"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"})
HEAD_RANGES: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "logsigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
}
# Targets may overshoot the head's range by this share of their own spread before we call it a misfit.
OVERSHOOT = 0.05
# Outputs that differ between samples by less than this share of their size are constant for float32.
CONSTANT = 1e-6


def loss_and_head(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a loss that wants raw scores and gets something squashed, or the other way round."""
    head = canonical(blueprint.head) if blueprint.head else None
    name = _head_name(blueprint)
    if blueprint.loss in SCORE_LOSSES and head is not None:
        if head == "log_softmax" and blueprint.loss == "cross_entropy":
            return  # idempotent: harmless
        twice = head in ("softmax", "sigmoid")
        yield Found(
            Severity.ERROR if twice else Severity.WARNING,
            f"{blueprint.loss} applies its own {_own(blueprint.loss)} and wants raw scores, but {name} already applied "
            f"{head}",
            name,
        )
    if blueprint.loss == "nll_loss" and head not in ("log_softmax", "logsigmoid") and not _log_probabilities(blueprint):
        yield Found(
            Severity.ERROR,
            f"nll_loss wants log-probabilities, but the output comes from {name or 'a layer without log_softmax'}",
            name,
        )


def one_unit_softmax(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a softmax over a single unit, which is 1 whatever goes in."""
    single = blueprint.output is not None and blueprint.output.shape[-1:] == (1,)
    if single and blueprint.head and canonical(blueprint.head) in ("softmax", "log_softmax"):
        name = _head_name(blueprint)
        yield Found(Severity.ERROR, f"{name} is a softmax over one unit: its output never changes", name)


def head_range(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find targets that the head cannot reach."""
    target, head = blueprint.target, canonical(blueprint.head) if blueprint.head else None
    if blueprint.loss not in REGRESSION_LOSSES or target is None or head not in HEAD_RANGES:
        return
    low, high = HEAD_RANGES[head]
    room = OVERSHOOT * (target.std or 1.0)
    if target.low >= low - room and target.high <= high + room:
        return
    inside = low - room <= target.mean <= high + room
    name = _head_name(blueprint)
    yield Found(
        Severity.WARNING if inside else Severity.ERROR,
        f"{name} ({head}) gives values in [{low:g}, {high:g}], but the targets lie in [{target.low:.3g}, "
        f"{target.high:.3g}]",
        name,
        {"target_low": target.low, "target_high": target.high},
    )


def constant_output(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find an output that is the same for every sample."""
    output, signal = observation.output, observation.output_signal
    if output is None or signal is None or output.nonfinite:
        return
    if blueprint.head_layer is not None and starts_at_zero(observation.layers[blueprint.head_layer]):
        return
    if signal <= CONSTANT * output.rms:
        yield Found(
            Severity.ERROR,
            f"the output is the same for every sample: it varies by {signal:.1e} around a size of {output.rms:.1e}",
            _head_name(blueprint),
            {"signal": signal, "rms": output.rms},
        )


def broadcasting(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find an elementwise loss whose two sides have different shapes."""
    shapes = blueprint.loss_shapes[:2]
    if blueprint.loss in REGRESSION_LOSSES and len(shapes) == 2 and shapes[0] != shapes[1]:
        yield Found(
            Severity.ERROR,
            f"{blueprint.loss} compares shape {list(shapes[0])} with {list(shapes[1])} and broadcasts: every output is "
            "compared with every target",
            _head_name(blueprint),
        )


def _head_name(blueprint: Blueprint) -> str | None:
    return blueprint.layers[blueprint.head_layer].name if blueprint.head_layer is not None else None


def _own(loss: str) -> str:
    return "softmax" if loss == "cross_entropy" else "sigmoid"


def _log_probabilities(blueprint: Blueprint) -> bool:
    """Whether the output looks like ``log(softmax(x))`` written out: never above 0."""
    return blueprint.head is not None and blueprint.output is not None and blueprint.output.high <= 0


RULES = (
    Rule(
        "SG601",
        "loss and head do not fit",
        Symptom.WIRING,
        "The loss applies a softmax or sigmoid that the model has applied already (gradients shrink, the loss has a "
        "floor), or lacks one that the model should have applied.",
        "cross_entropy or *_with_logits after any activation but log_softmax; nll_loss without log_softmax.",
        "Definition of the losses in torch. Double softmax: the loss of 10 classes cannot fall below 1.461.",
        "Remove the head's activation and keep the loss, or use the loss that takes probabilities.",
        loss_and_head,
    ),
    Rule(
        "SG602",
        "softmax over one unit",
        Symptom.WIRING,
        "A softmax over one unit is always 1 (its logarithm 0) and passes no gradient.",
        "softmax or log_softmax whose output has a last dimension of 1.",
        "Definition.",
        "Use a sigmoid (with binary_cross_entropy), or no activation with binary_cross_entropy_with_logits.",
        one_unit_softmax,
    ),
    Rule(
        "SG603",
        "targets out of the head's range",
        Symptom.WIRING,
        "The output activation cannot produce the targets, so the loss has a floor.",
        "Lowest or highest target beyond the head's range by over 5 % of the targets' standard deviation; error if "
        "their mean is outside.",
        "Definition of the ranges; the margin is our own choice. AUTOTRAINER's improper activation covers classes "
        "only.",
        "Remove the output activation, or scale the targets into its range.",
        head_range,
    ),
    Rule(
        "SG604",
        "constant output",
        Symptom.WIRING,
        "The model answers every sample alike, so it cannot learn to tell them apart.",
        "RMS deviation of the output over the batch <= 1e-6 of its RMS (the resolution of float32). A head that starts "
        "at zero does not count.",
        "Definition; the limit is the spacing of float32 with a margin of 10.",
        "Follow the signal: SG102 or SG104 name the layer where it is lost; otherwise look at the head.",
        constant_output,
    ),
    Rule(
        "SG605",
        "accidental broadcasting",
        Symptom.WIRING,
        "An output of shape (N, 1) against targets of shape (N,) compares every output with every target: the model "
        "learns the mean.",
        "mse_loss, l1_loss, smooth_l1_loss or huber_loss between different shapes.",
        "torch warns of it once (UserWarning) and goes on.",
        "Bring both to one shape: output.squeeze(-1), or target.unsqueeze(-1).",
        broadcasting,
    ),
)
