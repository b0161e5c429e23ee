"""SG103 to SG107: gradients that do not arrive, or move nothing."""

from __future__ import annotations

from collections.abc import Iterator

from steadygrad.diagnosis.profile import UNDERFLOW, WEIGHTED, starts_at_zero
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Role, Severity, Symptom

__all__ = ["RULES"]


def no_gradient(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find trainable layers that the loss does not depend on."""
    trainable = [
        (layer.name, stats)
        for layer, stats in zip(blueprint.layers, observation.layers, strict=True)
        if layer.trainable and stats.weight
    ]
    missing = [name for name, stats in trainable if stats.weight_grad is None]
    if not any(layer.trainable for layer in blueprint.layers):
        yield Found(Severity.ERROR, "no parameter requires a gradient: nothing can learn")
    elif missing and len(missing) == len(trainable):
        yield Found(Severity.ERROR, "no parameter gets a gradient: the loss is detached from the model")
    elif missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        yield Found(
            Severity.WARNING,
            f"{len(missing)} of {len(trainable)} trainable layers get no gradient, the loss does not depend on them: "
            f"{names}",
            missing[-1],
            {"layers": len(missing), "of": len(trainable)},
        )


def frozen(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a network that learns something, but none of its weight matrices, which nobody learned before."""
    weighted = [
        (layer.name, stats)
        for layer, stats in zip(blueprint.layers, observation.layers, strict=True)
        if stats.weight is not None and layer.role in (*WEIGHTED, Role.EMBEDDING)
    ]
    still = [name for name, stats in weighted if stats.weight_grad is None]
    if not blueprint.learned and observation.grad_norm > 0 and weighted and len(still) == len(weighted):
        yield Found(
            Severity.WARNING,
            f"the weights of all {len(still)} layers are frozen and only biases learn, though the set-up does not say "
            "that the weights were learned elsewhere (redraw=None)",
            still[0],
            {"layers": len(still)},
            1.0 / len(still),
        )


def unoptimized(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find layers that get gradients and that the optimizer does not hold."""
    left = blueprint.unoptimized
    if left and not blueprint.foreign:
        yield Found(
            Severity.WARNING,
            f"the optimizer does not hold {len(left)} layers that require a gradient: "
            f"{', '.join(left[:3])}{' ...' if len(left) > 3 else ''}",
            left[0],
            {"layers": len(left)},
            1.0 / len(left),
        )


def foreign_optimizer(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find an optimizer that holds parameters of something else."""
    if blueprint.foreign:
        left = len(blueprint.unoptimized)
        yield Found(
            Severity.ERROR,
            f"{blueprint.optimizer} holds {blueprint.foreign} parameters that are not the model's"
            + (f", and {left} layers of the model are left out" if left else ""),
            None,
            {"foreign": blueprint.foreign, "left_out": left},
        )


def blocked_gradient(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Find a layer that gets a gradient and passes on exactly nothing."""
    for position, layer in enumerate(blueprint.layers):
        stats = observation.layers[position]
        passed = {s: grad for s in layer.follows if (grad := observation.layers[s].output_grad) is not None}
        if not passed or stats.output_grad is None or stats.output_grad.abs_max < UNDERFLOW:
            continue
        zero_scale = layer.role is Role.NORMALIZATION and stats.output is not None and stats.output.abs_max == 0
        if zero_scale or starts_at_zero(stats):
            continue  # passes gradients on from the second step
        if all(grad.abs_max == 0 and not grad.nonfinite for grad in passed.values()):
            yield Found(
                Severity.ERROR,
                f"{layer.name} ({layer.kind}) gets a gradient of {stats.output_grad.rms:.1e}, and exactly 0 of it "
                f"arrives at the output of {blueprint.layers[max(passed)].name}: nothing below can learn",
                layer.name,
                {"gradient": stats.output_grad.rms},
            )
            return


RULES = (
    Rule(
        "SG103",
        "no gradient arrives",
        Symptom.DISCONNECTED,
        "Trainable parameters get no gradient at all, because the loss does not depend on them.",
        "A parameter that requires a gradient has none after the backward pass.",
        "Definition.",
        "Look for .detach(), .item(), torch.no_grad() or a module that forward never uses; freeze what should not "
        "learn.",
        no_gradient,
    ),
    Rule(
        "SG104",
        "gradient blocked",
        Symptom.DISCONNECTED,
        "One layer gets a gradient and passes on exactly zero: everything before it stands still.",
        "Largest gradient entry at its output >= 1e-30, at all its inputs exactly 0. A layer that starts at zero and "
        "learns does not count.",
        "Definition; a step function, a softmax over one unit, or a layer of dead units do this.",
        "Replace the layer: a step function by a smooth one, a one-unit softmax by a sigmoid; redraw dead or zero "
        "weights.",
        blocked_gradient,
    ),
    Rule(
        "SG105",
        "frozen random weights",
        Symptom.DISCONNECTED,
        "Layers that cannot learn pass on whatever their random weights make of the input.",
        "No weight matrix gets a gradient, though some other parameter does, and redraw is not None.",
        "Definition. A network that learns its head only is left alone: its weights may have been learned elsewhere.",
        "Unfreeze them: parameter.requires_grad_(True). For a pretrained network pass redraw=None.",
        frozen,
    ),
    Rule(
        "SG106",
        "left out of the optimizer",
        Symptom.DISCONNECTED,
        "Parameters that get a gradient never move, because the optimizer was built without them.",
        "A parameter that requires a gradient is in no parameter group.",
        "Definition.",
        "Pass all of them on: optimizer=lambda parameters: SGD(parameters, ...); freeze what should not learn.",
        unoptimized,
    ),
    Rule(
        "SG107",
        "optimizer of other parameters",
        Symptom.DISCONNECTED,
        "The optimizer moves parameters that the model does not have: another model's, or those of before a layer was "
        "replaced. What the model has stands still.",
        "A parameter group holds a parameter that model.parameters() does not.",
        "Definition; torch.optim: build the optimizer after the model has its final parameters.",
        "Use the factory's argument: optimizer=lambda parameters: SGD(parameters, ...). In a script of your own, build "
        "the optimizer after all changes of the model.",
        foreign_optimizer,
    ),
)
