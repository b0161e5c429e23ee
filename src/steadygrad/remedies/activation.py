"""Swap the hidden activations of a network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, SteadygradWarning
from steadygrad.records import Blueprint, Layer, Role, Symptom
from steadygrad.remedies.functions import AnsweredFunctions
from steadygrad.remedies.plan import Change, Plan, planned, replacing
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import is_module_call, module_of, weightless_before
from steadygrad.signals.blueprint import plain_model, read_blueprint
from steadygrad.signals.layers import canonical
from steadygrad.training.setup import TrainingSetup

__all__ = ["Step", "activation"]


class Step(nn.Hardtanh):
    """The step ``1 if x > 0 else 0``, its slope taken from a straight line of slope 1 on ``[min_val, max_val]``.

    The slope of the step itself is 0 wherever it exists, so that nothing in front of it would ever learn. This one is a
    biased estimate that trains shallow networks (straight-through estimator).

    Reference:
        Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013, sec. 4.
        https://arxiv.org/abs/1308.3432. Hubara et al., Binarized Neural Networks, 2016, eq. 4, for the interval.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Return exactly 0 or 1 for each entry."""
        line = input.clamp(self.min_val, self.max_val)
        return (input > 0).to(input.dtype) + (line - line.detach())


To = Literal[
    "relu", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "relu6", "hardtanh", "hardsigmoid",
    "hardswish", "softplus", "tanh", "sigmoid", "step",
]  # fmt: skip

_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "step": Step,
}
_CHILD = "swapped_activation"
# They couple the features of a sample (attention, gates of experts): no elementwise function stands in for them.
_COUPLED = frozenset({"softmax", "softmin", "log_softmax", "softmax2d", "glu"})


@planned(
    Card(
        name="activation",
        treats=(Symptom.VANISHING, Symptom.SATURATION, Symptom.DEAD_UNITS),
        site=Site.MODEL,
        summary="Swap the hidden activations for ones that neither saturate nor die.",
        formula="gelu: x * Phi(x); silu: x * sigmoid(x); selu: 1.0507 * (x if x > 0 else 1.6733 * (exp(x) - 1))",
        not_for="Weights of the wrong scale: initialize for the new activation. ReLU6, hard tanh and hard sigmoid have "
        "slope 0 beyond their bounds, as ReLU has below 0; a step has slope 0 everywhere. Layers whose biases hold all "
        "units below 0 stay dead with GELU and leaky ReLU, not with ELU.",
        hurts="Sigmoids that serve as gates are swapped too; weights keep the scale that suited the old activation.",
        reference="Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415; Klambauer et al. 2017 (SELU), "
        "https://arxiv.org/abs/1706.02515",
    )
)
def activation(setup: TrainingSetup, *, to: To = "gelu") -> Plan:
    """Swap the hidden elementwise activations; the one that makes the output and every softmax stay.

    A module that stands under several names, or is called several times, is replaced by one new module; so are all
    functions (``F.relu``) that one module's forward and what it holds call, however often. With SELU,
    dropout behind the activations becomes alpha dropout of the same rate, which keeps mean and variance (use rates of
    5 to 10 %); initialize with ``method="lecun"`` to complete the recipe.

    Args:
        setup: The set-up to change.
        to: The new activation, with torch's default settings; ``"silu"`` is also known as Swish. ``"step"`` gets a
            straight-through gradient and a warning.

    Raises:
        NotApplicableError: If there is no such activation, or one also makes the model's output.
    """
    if to == "step":
        warnings.warn(
            "activation: a step has slope 0 and by itself never trains; the slope used here is that of a straight line "
            "on [-1, 1], a biased estimate. Prefer to='gelu' unless the units have to be binary.",
            SteadygradWarning,
            stacklevel=4,
        )
    model, blueprint = plain_model(setup.model), read_blueprint(setup)
    hidden = _hidden_activations(model, blueprint)
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), None)

    def new() -> nn.Module:
        return _MODULES[to]() if like is None else _MODULES[to]().to(like.device, like.dtype)

    changes, seen = list[Change](), set[nn.Module]()
    called: dict[str, list[str]] = {}
    for position in hidden:
        layer = blueprint.layers[position]
        if not is_module_call(model, layer):
            if canonical(layer.kind) != to:
                called.setdefault(layer.module, []).append(layer.kind)
        elif (old := module_of(model, layer)) not in seen:
            seen.add(old)
            changes += replacing(model, old, new())
    for module, names in called.items():
        changes.append(Change(module, "child", _CHILD, new()))
        changes.append(Change(module, "forward", "forward", AnsweredFunctions(tuple(dict.fromkeys(names)), _CHILD)))
    if to == "selu":
        for dropout in _dropouts_behind(model, blueprint, hidden):
            changes += replacing(model, dropout, nn.AlphaDropout(dropout.p))
    return Plan((*changes, *_leaving_the_fast_path(model, changes)))


def _hidden_activations(model: nn.Module, blueprint: Blueprint) -> list[int]:
    hidden = [
        position
        for position, layer in enumerate(blueprint.layers)
        if position != blueprint.head_layer
        and (layer.role is Role.ACTIVATION or _is_own(model, layer))
        and canonical(layer.kind) not in _COUPLED
    ]
    if not hidden:
        raise NotApplicableError(
            "activation: expected a network with hidden activations, found none. Its layers are linear."
        )
    if blueprint.head_layer is not None:
        head, others = blueprint.layers[blueprint.head_layer], [blueprint.layers[position] for position in hidden]
        if any(_reaches(model, layer, head) for layer in others):
            name = head.name.partition("#")[0]  # without the number of the call
            raise NotApplicableError(
                f"activation: {name} makes the model's output and stands between hidden layers too. "
                "Give the output an activation module of its own."
            )
    return hidden


def _is_own(model: nn.Module, layer: Layer) -> bool:
    """Whether a layer is an activation of the user's own: a module that treats each entry by itself."""
    module = module_of(model, layer) if layer.role is Role.OTHER else None
    if module is None or type(module).__module__.startswith("torch."):
        return False
    x = torch.linspace(-2.0, 2.0, 12).reshape(3, 4)
    try:
        module = copy.deepcopy(module)  # one that counts its calls is left as it was
        with torch.no_grad():
            y, flat = module(x), module(x.flatten())
    except Exception:  # it wants another shape, so it does not treat each entry by itself
        return False
    return isinstance(y, Tensor) and y.shape == x.shape and torch.equal(y.flatten(), flat) and not torch.equal(y, x)


def _reaches(model: nn.Module, layer: Layer, head: Layer) -> bool:
    """Whether to swap a layer would swap the head too: both one module, or a function that both call."""
    if is_module_call(model, layer):
        return layer.module == head.module
    below = not layer.module or f"{head.module}.".startswith(f"{layer.module}.")
    return below and canonical(layer.kind) == canonical(head.kind)


def _dropouts_behind(model: nn.Module, blueprint: Blueprint, activations: list[int]) -> dict[nn.Dropout, None]:
    found: dict[nn.Dropout, None] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(model, layer)
        if isinstance(module, nn.Dropout) and weightless_before(blueprint, position).intersection(activations):
            found[module] = None
    return found


def _leaving_the_fast_path(model: nn.Module, changes: list[Change]) -> Iterator[Change]:
    """Yield what makes transformer layers forget the number by which their fast path knows the old activation."""
    for change in changes:
        owner = model.get_submodule(change.module)
        if isinstance(owner, nn.TransformerEncoderLayer) and change.name in ("activation", "forward"):
            known = owner.activation_relu_or_gelu
            yield Change(change.module, "attribute", "activation_relu_or_gelu", 0, old=repr(known))
