"""SG203 to SG205: which layer made the first NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Moments, Observation, Severity, Symptom

__all__ = ["RULES"]


def forward_origin(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find the first layer with finite inputs and a non-finite output."""
    if any(scale.nonfinite for scale in blueprint.inputs):
        return  # the data's fault, SG801
    for layer, stats in zip(blueprint.layers, observation.layers, strict=True):
        if not _broken(stats.output):
            continue
        before = ", ".join(blueprint.layers[source].name for source in layer.follows[-2:]) or "the input"
        cause = "its own weights are not finite" if _broken(stats.weight) else f"what comes from {before} is finite"
        yield Found(
            Severity.ERROR,
            f"{layer.name} ({layer.kind}) is the first layer with a non-finite output: "
            f"{stats.output.nonfinite} of {stats.output.numel} entries; {cause}",
            layer.name,
            {"nonfinite": stats.output.nonfinite, "numel": stats.output.numel},
        )
        return
    if _broken(observation.output):
        yield Found(
            Severity.ERROR,
            f"{observation.output.nonfinite} of {observation.output.numel} entries of the model's output are not "
            "finite, though the outputs of all layers are: what the model does after its last layer makes them",
            evidence={"nonfinite": observation.output.nonfinite, "numel": observation.output.numel},
        )


def backward_origin(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find the layer that gets a finite gradient and passes on a non-finite one."""
    if not math.isfinite(observation.loss):
        return
    broken = {p: grad.nonfinite for p, stats in enumerate(observation.layers) if _broken(grad := stats.output_grad)}
    if not broken:
        yield from _broken_weight_grad(blueprint, observation)
        return
    source, nonfinite = max(broken.items())
    # A reader that also reads a layer with a finite gradient (a later block of a residual net) made nothing.
    finite = {p for p, stats in enumerate(observation.layers) if stats.output_grad is not None} - set(broken)
    suspects = [layer for layer in blueprint.layers if source in layer.follows and finite.isdisjoint(layer.follows)]
    arrives = f"{nonfinite} non-finite entries arrive at the output of {blueprint.layers[source].name}"
    yield Found(
        Severity.ERROR,
        f"{suspects[0].name} ({suspects[0].kind}) gets a finite gradient, and {arrives}"
        if suspects
        else f"the loss is finite, but its gradient is not: {arrives}, after which only the loss comes",
        suspects[0].name if suspects else None,
        {"nonfinite": nonfinite},
        1.0 / max(len(suspects), 1),
    )


def _broken_weight_grad(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    for layer, stats in zip(blueprint.layers, observation.layers, strict=True):
        if _broken(stats.weight_grad):
            yield Found(
                Severity.ERROR,
                f"{layer.name} ({layer.kind}) gets a finite gradient and makes {stats.weight_grad.nonfinite} "
                "non-finite entries in that of its weights",
                layer.name,
                {"nonfinite": stats.weight_grad.nonfinite},
            )
            return


def loss_origin(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a loss that is not finite though the model's output is."""
    if not math.isfinite(observation.loss) and not _broken(observation.output):
        targets = blueprint.target is not None and blueprint.target.nonfinite > 0
        if not targets:
            yield Found(
                Severity.ERROR,
                f"the loss is {observation.loss} though the model's output is finite: the loss itself makes it",
                evidence={"output_abs_max": observation.output.abs_max} if observation.output else {},
            )


def _broken(moments: Moments | None) -> TypeGuard[Moments]:
    return moments is not None and moments.nonfinite > 0


RULES = (
    Rule(
        "SG203",
        "non-finite forward",
        Symptom.NONFINITE,
        "A layer turns finite inputs into NaN or infinity. Layers after it only pass it on.",
        "The first layer in execution order with a non-finite output, unless the inputs are at fault (SG801).",
        "Definition (producer, not propagator).",
        "Look at that layer: a division, a log or a sqrt at 0, an overflow in half precision, or weights already "
        "broken.",
        forward_origin,
    ),
    Rule(
        "SG204",
        "non-finite backward",
        Symptom.NONFINITE,
        "The loss is finite, but a layer's backward pass makes NaN or infinity.",
        "The reader of the last layer in execution order with a non-finite output gradient; without one, the first "
        "layer with a non-finite weight gradient.",
        "Definition (producer, not propagator).",
        "Look at that layer's derivative: sqrt, norm or log at 0, or x/x; add a small epsilon inside the function.",
        backward_origin,
    ),
    Rule(
        "SG205",
        "non-finite loss",
        Symptom.NONFINITE,
        "The model's output is finite and the loss is not.",
        "loss is NaN or infinite while all outputs and targets are finite.",
        "Definition.",
        "Use the loss's logits form (cross_entropy, binary_cross_entropy_with_logits), which is stable.",
        loss_origin,
    ),
)
