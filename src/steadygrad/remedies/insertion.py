"""Put activations where a network has none."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError
from steadygrad.records import Role, Symptom
from steadygrad.remedies.plan import Change, Plan, planned
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import head_weights, module_of
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["ApplyActivation", "inserted_activation"]

_MODULES = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class ApplyActivation:
    """A forward hook that passes a layer's output through its child module ``activation``."""

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Return the activated output."""
        return module.get_submodule("activation")(output)

    def __repr__(self) -> str:
        return "activation(output)"


@planned(
    Card(
        name="inserted_activation",
        treats=(Symptom.WIRING,),
        site=Site.MODEL,
        summary="Put an activation behind every hidden Linear or Conv layer that has none.",
        formula="x_(l+1) = f(W x_l + b)",
        not_for="Linear layers that follow each other on purpose, as a factorization of low rank.",
        hurts="What was one linear map bends, and can overfit.",
        reference="Goodfellow et al., Deep Learning, 2016, sec. 6.1",
    )
)
def inserted_activation(setup: TrainingSetup, *, to: Literal["relu", "gelu", "tanh"] = "relu") -> Plan:
    """Put an activation behind hidden layers; old state-dict keys stay.

    Args:
        setup: The set-up to change.
        to: The activation.

    Raises:
        NotApplicableError: If every hidden layer has one.
    """
    blueprint = read_blueprint(setup)
    heads = head_weights(blueprint)
    layers: dict[nn.Module, str] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(setup.model, layer)
        bare = layer.role is Role.LINEAR and layer.activation is None
        if bare and position not in heads and isinstance(module, (nn.Linear, _ConvNd)):
            layers[module] = layer.module
    if not layers:
        raise NotApplicableError(
            "inserted_activation: expected hidden Linear or Conv layers without an activation, found none. "
            "Swap activations with activation(to=...)."
        )
    changes: list[Change] = []
    for name in layers.values():
        changes.append(Change(name, "child", "activation", _MODULES[to]()))
        changes.append(Change(name, "after", "activation", ApplyActivation()))
    return Plan(tuple(changes))
