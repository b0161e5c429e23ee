"""Change the size of a network: wider hidden layers, fewer of them."""

from __future__ import annotations

import torch
from torch import nn

from steadygrad.errors import NotApplicableError, SetupError, UsageError
from steadygrad.records import Blueprint, Role, Symptom
from steadygrad.remedies.plan import Plan, planned, replacing
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import activation_behind, head_weights, is_module_call, module_of, sources_through
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training import copied, first_batch, preserved, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["depth", "width"]


@planned(
    Card(
        name="width",
        treats=(Symptom.DEAD_UNITS,),
        site=Site.MODEL,
        summary="Give every hidden Linear layer more units.",
        formula="W: (m, n) -> (times m, times n), inputs and output as they were",
        not_for="A network that does not learn at all: it will be a larger one that does not.",
        hurts="What was learned is lost; memory and time grow with the square.",
        cost="times^2 the multiplications of hidden layers",
        reference="Hanin and Rolnick 2018, https://arxiv.org/abs/1803.01719 (gradients vary with the sum of 1/width)",
    )
)
def width(setup: TrainingSetup, *, times: int = 2) -> Plan:
    """Multiply the units of all hidden layers; weights are drawn as torch draws them.

    Args:
        setup: The set-up to change.
        times: Factor, a whole number of 2 or more.

    Raises:
        NotApplicableError: If there is no hidden layer, or a weight layer is not a plain ``nn.Linear``.
        UsageError: If ``times`` is out of range.
    """
    if times < 2 or times != int(times):
        raise UsageError(f"width: expected times to be a whole number of at least 2, got {times}.")
    blueprint = read_blueprint(setup)
    heads, changes = head_weights(blueprint), []
    linear = _linear(setup.model, blueprint, "width")
    if not set(linear) - heads:
        raise NotApplicableError("width: expected hidden layers, found none. There is nothing to widen.")
    for position, old in linear.items():
        fed = times if sources_through(blueprint, position) else 1
        units = old.out_features * (1 if position in heads else times)
        changes += replacing(setup.model, old, _like(old, old.in_features * fed, units))
    for layer in blueprint.layers:
        norm = module_of(setup.model, layer)
        if layer.role is Role.NORMALIZATION and layer.follows and isinstance(norm, (nn.BatchNorm1d, nn.LayerNorm)):
            size = norm.num_features if isinstance(norm, nn.BatchNorm1d) else norm.normalized_shape[-1]
            changes += replacing(setup.model, norm, type(norm)(size * times).to(_place(norm)))
    plan, wide = Plan(tuple(changes)), copied(setup)
    plan.apply_(wide.model)
    try:
        with preserved(wide.model), torch.no_grad():
            run_model(wide, wide.model, first_batch(wide))
    except SetupError as error:
        raise NotApplicableError(f"width: expected layers that only read each other, but then {error}") from error
    return plan


@planned(
    Card(
        name="depth",
        treats=(Symptom.VANISHING, Symptom.EXPLODING),
        site=Site.MODEL,
        summary="Take hidden Linear layers out until few are left.",
        formula="x_(l+1) = x_l for every layer taken out",
        not_for="Tasks that need the depth. Sigmoids and small weights vanish over three layers: draw them anew.",
        hurts="The network can express less; what was learned is lost.",
        reference="He and Sun 2015, https://arxiv.org/abs/1412.1710 (plain networks degrade with depth)",
    )
)
def depth(setup: TrainingSetup, *, layers: int = 4) -> Plan:
    """Replace hidden layers with as many inputs as units, and the activations behind them, by identities.

    Args:
        setup: The set-up to change.
        layers: Weight layers that may stay, the last ones to go being the first in the network.

    Raises:
        NotApplicableError: If there are no more layers than that, or none that could go.
        UsageError: If ``layers`` is under 1.
    """
    if layers < 1:
        raise UsageError(f"depth: expected layers of at least 1, got {layers}.")
    blueprint = read_blueprint(setup)
    linear, heads = _linear(setup.model, blueprint, "depth"), head_weights(blueprint)
    able = [p for p, old in linear.items() if p not in heads and old.in_features == old.out_features]
    gone = able[::-1][: max(len(linear) - layers, 0)]
    if not gone:
        raise NotApplicableError(
            f"depth: expected more than {layers} weight layers, with hidden ones that have as many inputs as units, "
            "found none that could go."
        )
    changes = []
    for position in gone:
        changes += replacing(setup.model, linear[position], nn.Identity())
        behind = activation_behind(blueprint, position)
        alone = behind is not None and sum(layer.module == behind.module for layer in blueprint.layers) == 1
        if behind is not None and alone and is_module_call(setup.model, behind):
            changes += replacing(setup.model, module_of(setup.model, behind), nn.Identity())
    return Plan(tuple(changes))


def _linear(model: nn.Module, blueprint: Blueprint, where: str) -> dict[int, nn.Linear]:
    """Return the weight layers by position.

    Raises:
        NotApplicableError: If one is not an ``nn.Linear`` of its own, called once.
    """
    found: dict[int, nn.Linear] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(model, layer)
        if layer.role not in (Role.LINEAR, Role.RECURRENT, Role.ATTENTION):
            continue
        if type(module) is not nn.Linear or module in found.values() or module is model:
            raise NotApplicableError(
                f"{where}: expected nothing but nn.Linear modules, each called once, as weight layers, found "
                f"{layer.name} ({layer.kind}). Change it in the model's own code."
            )
        found[position] = module
    return found


def _like(old: nn.Linear, inputs: int, units: int) -> nn.Linear:
    weight = old.weight
    return nn.Linear(inputs, units, old.bias is not None, device=weight.device, dtype=weight.dtype)


def _place(norm: nn.Module) -> torch.Tensor:
    """Return a tensor of the device and dtype that a normalization computes in."""
    return next(iter((*norm.parameters(), *norm.buffers())), torch.empty(()))
