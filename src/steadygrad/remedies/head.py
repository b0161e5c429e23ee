"""Replace the activation that makes the model's output."""

from __future__ import annotations

from typing import Literal

from torch import nn

from steadygrad.errors import NotApplicableError
from steadygrad.records import Role, Symptom
from steadygrad.remedies.plan import Plan, planned, replacing
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import is_module_call, module_of
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["head"]


@planned(
    Card(
        name="head",
        treats=(Symptom.WIRING,),
        site=Site.MODEL,
        summary="Replace the activation that makes the model's output.",
        formula="identity: logits; sigmoid: 1 / (1 + exp(-x)); log_softmax: x - log sum exp(x), over dimension 1",
        not_for="What happens between the hidden layers.",
        hurts="Users of the model's output get logits where they had probabilities, or the other way round.",
        reference="Bishop 2006, sec. 5.2",
    )
)
def head(setup: TrainingSetup, *, to: Literal["identity", "sigmoid", "log_softmax"] = "identity") -> Plan:
    """Replace the activation module that makes the output.

    Args:
        setup: The set-up to change.
        to: ``"identity"`` leaves logits; ``"log_softmax"`` runs over the classes, dimension 1.

    Raises:
        NotApplicableError: If a weight layer or a function makes the output, or the module is used elsewhere too.
    """
    blueprint = read_blueprint(setup)
    position = blueprint.head_layer
    layer = None if position is None else blueprint.layers[position]
    if layer is None or layer.role is not Role.ACTIVATION:
        made_by = "something that was not seen" if layer is None else layer.name
        raise NotApplicableError(
            f"head: expected an activation module that makes the model's output, but {made_by} makes it. "
            "Change the loss instead, with loss(to=...)."
        )
    if not is_module_call(setup.model, layer):
        raise NotApplicableError(
            f"head: {layer.module or 'the model'} calls {layer.kind} as a function inside its forward. Change it there."
        )
    if sum(other.module == layer.module for other in blueprint.layers) > 1:
        raise NotApplicableError(
            f"head: {layer.module} makes the model's output and stands between hidden layers too. "
            "Give the output an activation module of its own."
        )
    new = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "log_softmax": nn.LogSoftmax(dim=1)}[to]
    return Plan(tuple(replacing(setup.model, module_of(setup.model, layer), new)))
