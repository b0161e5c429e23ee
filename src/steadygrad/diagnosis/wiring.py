"""SG60x: loss, head and targets that do not fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator

from steadygrad.diagnosis.profile import starts_at_zero
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Role, Severity, Symptom, TargetKind
from steadygrad.signals.layers import canonical

__all__ = ["HEAD_RANGES", "PROBABILITY_LOSSES", "REGRESSION_LOSSES", "RULES"]

# Losses that apply a softmax or sigmoid themselves and so want raw scores.
SCORE_LOSSES = frozenset({"cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"})
# Losses that want the probabilities themselves; the last two are Keras's.
PROBABILITY_LOSSES = frozenset({"binary_cross_entropy", "categorical_crossentropy", "sparse_categorical_crossentropy"})
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
# A class that this many samples of a batch should have, and none has, is missing.
MISSED = 5.0
NEVER_NEGATIVE = frozenset(
    {"cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits", *REGRESSION_LOSSES}
)
# Modules and functions that leave a linear map linear.
KEEPS_STRAIGHT = frozenset(
    "Dropout Identity Flatten Unflatten AvgPool1d AvgPool2d AdaptiveAvgPool2d flatten unflatten view reshape permute "
    "transpose squeeze unsqueeze contiguous dropout mean size dim __get__".split()
)


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
    output = blueprint.output
    if blueprint.loss in PROBABILITY_LOSSES and output is not None and (output.low < 0 or output.high > 1):
        yield Found(
            Severity.ERROR,
            f"{blueprint.loss} wants probabilities, but the output lies in [{output.low:.3g}, {output.high:.3g}]",
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


def one_linear_map(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a network of several linear layers with nothing between them."""
    linear = [layer for layer in blueprint.layers if layer.role is Role.LINEAR and (layer.fan_in or 0) > 1]
    bends = (Role.ACTIVATION, Role.RECURRENT, Role.ATTENTION, Role.NORMALIZATION)
    others = {layer.kind for layer in blueprint.layers if layer.role is Role.OTHER}
    hidden = [position for position, layer in enumerate(blueprint.layers) if layer.role in bends]
    straight = all(position == blueprint.head_layer for position in hidden)
    if (
        len(linear) < 2
        or not straight
        or not others <= KEEPS_STRAIGHT
        or not set(blueprint.functions) <= KEEPS_STRAIGHT
    ):
        return
    yield Found(
        Severity.WARNING,
        f"{len(linear)} linear layers follow each other with no activation between them: together they are one linear "
        "map",
        linear[0].name,
        {"layers": len(linear)},
        1.0 / len(linear),
    )


def labels_off_by_one(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find labels that start at 1 where the output has a unit for 0."""
    target, output = blueprint.target, blueprint.output
    if blueprint.target_kind is not TargetKind.CLASS_INDEX or target is None or output is None:
        return
    classes = output.shape[1] if len(output.shape) > 1 else 0
    expected = math.prod(target.shape) / max(classes, 1)
    if classes > 2 and target.low >= 1 and target.high == classes - 1 and expected >= MISSED:
        yield Found(
            Severity.NOTE,
            f"labels run from {target.low:g} to {target.high:g} and the output has {classes} units: label 0 does not "
            "occur",
            _head_name(blueprint),
            {"low": target.low, "units": classes},
        )


def labels_out_of_range(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find labels that the output has no unit for, before the loss raises."""
    target, output = blueprint.target, blueprint.output
    if not blueprint.labels_outside or target is None or output is None:
        return
    units = output.shape[1]
    shifted = target.low == 1 and target.high == units
    yield Found(
        Severity.ERROR,
        f"labels run from {target.low:g} to {target.high:g}, but the output has {units} units, for 0 to {units - 1}"
        + (": they are off by one" if shifted else ""),
        _head_name(blueprint),
        {"low": target.low, "high": target.high, "units": units, "outside": blueprint.labels_outside},
    )


def summed_loss(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a loss that adds up its batch."""
    if blueprint.loss is not None and blueprint.loss_reduction == "sum" and blueprint.batch > 1:
        yield Found(
            Severity.NOTE,
            f"{blueprint.loss} sums over the batch: gradients are {blueprint.batch} times those of the mean, and so is "
            "the learning rate of every optimizer that does not normalize them",
            evidence={"batch": blueprint.batch},
        )


def wrong_sign(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a loss below 0 that cannot be."""
    of_logarithms = blueprint.loss == "nll_loss" and canonical(blueprint.head or "") == "log_softmax"
    if (blueprint.loss in NEVER_NEGATIVE or of_logarithms) and observation.loss < 0:
        yield Found(
            Severity.ERROR,
            f"the loss is {observation.loss:.3g}, though {blueprint.loss} is never below 0: its sign was turned, and "
            "the training makes it worse",
            evidence={"loss": observation.loss},
        )


def evaluation_mode(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find dropout or normalization left in evaluation mode."""
    if found := blueprint.evaluating:
        yield Found(
            Severity.NOTE,
            f"{len(found)} modules that act otherwise while training stand in evaluation mode: {', '.join(found[:3])}"
            f"{' ...' if len(found) > 3 else ''}",
            found[0],
            {"modules": len(found)},
            1.0 / len(found),
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
        "cross_entropy or *_with_logits after any activation but log_softmax; nll_loss without log_softmax; an output "
        "beyond [0, 1] into binary_cross_entropy or Keras's (sparse_)categorical_crossentropy without from_logits.",
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
    Rule(
        "SG606",
        "no activation between layers",
        Symptom.WIRING,
        "Linear layers without anything between them are one linear map: depth adds nothing.",
        "Two or more linear layers, no activation, normalization, recurrence or attention before the output, and no "
        "function of unknown kind.",
        "Definition. NeuraLint (Nikanjam et al., TOSEM 2021) has it as a missing activation.",
        "Put an activation (nn.ReLU) behind every hidden layer.",
        one_linear_map,
    ),
    Rule(
        "SG607",
        "labels off by one",
        Symptom.WIRING,
        "Labels that start at 1 need an output unit that is never right. Without it torch raises: the highest label is "
        "out of bounds.",
        "Lowest label >= 1 and highest = units - 1, in a batch that would hold 5 of each class or more.",
        "Definition; the size of the batch is our own choice.",
        "Subtract 1 from the labels, and give the output one unit a class.",
        labels_off_by_one,
    ),
    Rule(
        "SG608",
        "loss summed over the batch",
        Symptom.WIRING,
        "A sum grows with the batch, so that the learning rate that fits depends on the batch size.",
        "A torch loss called with reduction='sum' on a batch of two or more.",
        "Definition.",
        "Use reduction='mean', or divide the learning rate by the batch size.",
        summed_loss,
    ),
    Rule(
        "SG609",
        "loss with the wrong sign",
        Symptom.WIRING,
        "The optimizer minimizes: a loss whose sign was turned drives the model away from its targets.",
        "loss < 0, and the torch function that made it is never below 0 (nll_loss behind a log_softmax).",
        "Definition; AUTOTRAINER (Zhang et al. 2021) alarms at any negative loss.",
        "Remove the minus sign.",
        wrong_sign,
    ),
    Rule(
        "SG610",
        "evaluation mode left on",
        Symptom.WIRING,
        "In evaluation mode dropout does nothing and BatchNorm does not learn its statistics.",
        "A dropout or normalization module with training = False before the training.",
        "Definition.",
        "Call model.train() before training; leave it if those modules are meant to stay fixed.",
        evaluation_mode,
    ),
    Rule(
        "SG611",
        "labels out of range",
        Symptom.WIRING,
        "The loss fails on labels that no unit of the output stands for. Everything else was judged with the nearest "
        "labels that have one.",
        "The loss raises, a class index of the batch is below 0 or at least the number of units, and with all of them "
        "clamped into the range it does not raise.",
        "Definition of cross_entropy and nll_loss.",
        "Subtract 1 where labels start at 1; else give the output as many units as the highest label plus one, or "
        "leave those samples out (ignore_index).",
        labels_out_of_range,
    ),
)
