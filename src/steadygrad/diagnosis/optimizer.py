"""SG521, SG522: an optimizer whose weight decay or momentum leaves the gradient no say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Blueprint, Observation, Severity, Symptom

__all__ = ["RULES"]

# The decay pulls harder than the gradient pushes, and all planned steps can take the weights half of the way to 0.
OUTWEIGHS, HALFWAY = 1.0, 0.5
# Or it takes so much of the weights in a step that they forget within 20 what they learned, however hard the gradient
# pushes; usual settings forget within 1,000 and more (SGD 0.1, momentum 0.9, decay 5e-4: 2,000).
FORGETS = 0.05
# Swings die down e-fold in 2 / (1 - momentum) steps. Below this momentum that is 40 steps: too few is another fault.
NEAR_ONE = 0.95


def decay_too_strong(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the pull of weight decay with the push of the gradient, and with the steps that are planned."""
    settings = blueprint.optimizer_settings
    decay, momentum = settings.get("weight_decay", 0.0), min(settings.get("momentum", 0.0), 0.999)
    decoupled = blueprint.optimizer == "AdamW"  # its gradient's part of a step is about 1 in every weight
    pulls, ratios = [], []
    for stats in observation.layers:
        if stats.weight and stats.weight_grad and stats.weight_grad.rms and stats.update_ratio:
            pulls.append(decay * stats.weight.rms / (1.0 if decoupled else stats.weight_grad.rms))
            ratios.append(stats.update_ratio)
    if not pulls or not decay > 0:
        return
    pull, reach = median(pulls), median(ratios) * blueprint.steps / (1 - momentum)
    forgotten = decay * settings.get("lr", 0.0) / (1 - momentum) if decoupled or blueprint.optimizer == "SGD" else 0.0
    if OUTWEIGHS <= pull < math.inf and reach >= HALFWAY:
        what = (
            f"pulls the weights to 0 {pull:.1e} times as hard as the gradient pushes (median of {len(pulls)} layers), "
            f"and {blueprint.steps} steps take them there"
        )
    elif forgotten >= FORGETS:
        steps = f"{1 / forgotten:.0f}"
        what = f"takes {forgotten:.0%} of the weights in every step: they forget within {steps} what they learned"
    else:
        return
    evidence = {"weight_decay": decay, "pull": pull, "reach": reach, "forgotten": forgotten}
    yield Found(Severity.WARNING, f"the weight decay of {decay:g} {what}", None, evidence)


def momentum_too_near_one(blueprint: Blueprint, observation: Observation) -> Iterator[Found]:
    """Compare the memory of momentum with the steps that are planned."""
    momentum = blueprint.optimizer_settings.get("momentum", 0.0)
    if NEAR_ONE < momentum < 1 and 0 < blueprint.steps < (memory := 2 / (1 - momentum)):
        yield Found(
            Severity.WARNING,
            f"with a momentum of {momentum:g} swings take {memory:.0f} steps to die down, and {blueprint.steps} are "
            "planned",
            None,
            {"momentum": momentum, "memory": memory},
        )


RULES = (
    Rule(
        "SG521",
        "weight decay outweighs the gradient",
        Symptom.LEARNING_RATE,
        "The weights shrink towards 0 whatever the gradient says, and the output with them.",
        "median over weight layers of decay * rms(W) / rms(gradient) >= 1, for AdamW of decay * rms(W), and of "
        "rms(step) / rms(W), times steps / (1 - momentum), >= 0.5; or, for SGD and AdamW, decay * learning rate / "
        "(1 - momentum) >= 0.05.",
        "Equilibrium of pull and push (Kosson et al. 2023, Rotational Equilibrium; for AdamW weights stay below "
        "1 / decay: Xie and Li 2024, Implicit Bias of AdamW). One batch stands for all; the limits are own choices.",
        "Lower weight_decay: 1e-4 to 5e-4 are usual for SGD, 0.01 to 0.1 for AdamW.",
        decay_too_strong,
    ),
    Rule(
        "SG522",
        "momentum too near 1 for the steps planned",
        Symptom.LEARNING_RATE,
        "The optimizer still follows its first gradients when the training ends: it swings past every minimum.",
        "momentum > 0.95 and steps < 2 / (1 - momentum).",
        "On a quadratic loss the error shrinks by sqrt(momentum) a step where momentum leads: Goh 2017, Why Momentum "
        "Really Works.",
        "Use 0.9 (for steps that reach as far, with the learning rate times 0.1 / (1 - momentum)), or plan more steps.",
        momentum_too_near_one,
    ),
)
