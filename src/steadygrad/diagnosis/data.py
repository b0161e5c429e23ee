"""SG80x: inputs and targets that are not finite, far from unit scale, or badly mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from steadygrad.diagnosis.profile import WEIGHTED
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.diagnosis.wiring import REGRESSION_LOSSES
from steadygrad.records import Blueprint, Observation, Range, Role, Severity, Symptom, TargetKind

__all__ = ["RULES"]

# Initializations assume inputs of about unit second moment (LeCun et al. 1998, Efficient BackProp, sec. 4.3). Raw
# pixels have an RMS of 130, pixels in [0, 1] of 0.3; UMLAUT and DeepDiagnosis alarm outside [-1, 1], where standardized
# data lie too.
LARGE_WARNING, LARGE_ERROR, SMALL_WARNING = 20.0, 1e3, 1e-3
# Rare pixels and rare words differ a thousandfold and do no harm.
UNEVEN = 1e4
FEWEST = 16  # samples that one label may not have all of
# Output and target match if a predicted mean lies within 3 target standard deviations and scales within this ratio.
MATCHED_SCALE = 30.0


def non_finite(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find NaN or infinity in inputs or targets."""
    scales = [("input", scale) for scale in blueprint.inputs]
    scales += [("target", blueprint.target)] if blueprint.target is not None else []
    for what, scale in scales:
        if scale.nonfinite:
            total = math.prod(scale.shape)
            yield Found(
                Severity.ERROR,
                f"{scale.nonfinite} of {total} entries of the {what} are NaN or infinite",
                evidence={"nonfinite": scale.nonfinite, "numel": total},
            )


def unscaled_inputs(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare what enters the first weight layers with unit scale."""
    far = [(math.hypot(mean, std), mean, std) for mean, std in _entering(blueprint, observation)]
    far = [scale for scale in far if not SMALL_WARNING < scale[0] < LARGE_WARNING]
    if not far:
        return
    rms, mean, std = max(far, key=lambda scale: abs(math.log10(scale[0])) if scale[0] else math.inf)
    yield Found(
        Severity.ERROR if rms >= LARGE_ERROR or rms == 0 else Severity.WARNING,
        f"inputs have mean {mean:.3g} and standard deviation {std:.3g}: far from unit scale",
        evidence={"mean": mean, "std": std},
    )


def _entering(blueprint: Blueprint, observation: Observation) -> Iterator[tuple[float, float]]:
    """Yield mean and standard deviation of what enters each first weight layer, reshapes and dropout passed."""
    for scale in blueprint.entries:
        if math.isfinite(scale.std):
            yield scale.mean, scale.std
    passed: set[int] = set()
    for position, layer in enumerate(blueprint.layers):
        if layer.role is Role.OTHER and passed.issuperset(layer.follows):
            passed.add(position)
        elif layer.role in WEIGHTED and layer.follows and passed.issuperset(layer.follows):
            for source in layer.follows:
                if (output := observation.layers[source].output) is not None and output.numel > output.nonfinite:
                    yield output.mean, math.sqrt(max(output.rms**2 - output.mean**2, 0.0))


def uneven_inputs(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the features of a table with each other."""
    entries = blueprint.entries or blueprint.inputs
    ratio = max((scale.feature_std_ratio or 1.0 for scale in entries), default=1.0)
    if ratio >= UNEVEN:
        yield Found(
            Severity.WARNING,
            f"the standard deviations of the input's features differ up to {ratio:.1e}-fold: the largest drown "
            "the rest",
            evidence={"ratio": ratio},
        )


def one_class(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a batch in which all labels are the same."""
    target = blueprint.target
    labels = blueprint.target_kind in (TargetKind.CLASS_INDEX, TargetKind.BINARY)
    if labels and target is not None and blueprint.batch >= FEWEST and target.low == target.high:
        yield Found(
            Severity.WARNING,
            f"all {blueprint.batch} samples of the first batch have the label {target.low:g}: the data may be sorted",
            evidence={"label": target.low, "batch": blueprint.batch},
        )


def unscaled_targets(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare real targets with unit scale, unless the model's output is there already."""
    target, output = blueprint.target, blueprint.output
    if target is None or blueprint.target_kind is not TargetKind.REAL or blueprint.loss not in REGRESSION_LOSSES:
        return
    rms = _rms(target)
    if not math.isfinite(rms) or SMALL_WARNING < rms < LARGE_WARNING or _matched(output, target):
        return
    yield Found(
        Severity.ERROR if rms >= LARGE_ERROR else Severity.WARNING,
        f"targets have mean {target.mean:.3g} and standard deviation {target.std:.3g}: far from unit scale and from "
        f"the model's first outputs" + (f" ({output.mean:.3g} +- {output.std:.3g})" if output is not None else ""),
        evidence={"mean": target.mean, "std": target.std},
    )


def _rms(scale: Range) -> float:
    return math.hypot(scale.mean, scale.std)


def _matched(output: Range | None, target: Range) -> bool:
    if output is None or not target.std > 0 or not output.std > 0:
        return False
    scale = max(output.std / target.std, target.std / output.std)
    return abs(output.mean - target.mean) <= 3 * target.std and scale <= MATCHED_SCALE


RULES = (
    Rule(
        "SG801",
        "non-finite data",
        Symptom.DATA,
        "NaN or infinity in the data makes every number of the training NaN.",
        "Any non-finite entry in an input or a target.",
        "Definition.",
        "Drop or impute those entries before training.",
        non_finite,
    ),
    Rule(
        "SG802",
        "inputs far from unit scale",
        Symptom.DATA,
        "Initializations expect inputs of about unit scale: large ones saturate or blow up the first layer, tiny ones "
        "give it nothing to tell samples apart by.",
        "RMS of what enters a first weight layer >= 20 or <= 0.001 (warning), >= 1000 or 0 (error).",
        "LeCun et al. 1998, Efficient BackProp, sec. 4.3; limits are own choices that leave [0, 1] pixels alone.",
        "Standardize the inputs: subtract the training mean, divide by the training standard deviation.",
        unscaled_inputs,
    ),
    Rule(
        "SG803",
        "targets far from unit scale",
        Symptom.DATA,
        "A regression whose targets are far from the first outputs spends its training on the offset, with huge "
        "gradients.",
        "RMS of real targets >= 20 (warning), >= 1000 (error) or <= 0.001, unless the first outputs have the same mean "
        "and scale.",
        "LeCun et al. 1998, Efficient BackProp; limits are own choices.",
        "Standardize the targets and undo it at the output.",
        unscaled_targets,
    ),
    Rule(
        "SG804",
        "a batch of one class",
        Symptom.DATA,
        "Each step pushes all answers towards one class, and the next towards another: the training chases its tail.",
        "All labels of a batch of 16 or more are equal.",
        "Definition; by chance this happens to a batch of 16 in two even classes 3 times in 100,000.",
        "Shuffle the training data (DataLoader(shuffle=True)), or balance the classes.",
        one_class,
    ),
    Rule(
        "SG805",
        "features of very different scale",
        Symptom.DATA,
        "Features with large numbers decide everything at first, and the others are learned slowly or not at all.",
        "Largest over smallest standard deviation of an input's features, constant ones left out, >= 1e4.",
        "LeCun et al. 1998, Efficient BackProp, sec. 4.3; the limit is our own choice.",
        "Standardize each feature: subtract its training mean, divide by its training standard deviation.",
        uneven_inputs,
    ),
)
