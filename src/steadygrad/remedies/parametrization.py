"""Hold weights in a form that keeps them well scaled, by ``torch.nn.utils.parametrize``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrizations, parametrize

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Blueprint, Role, Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.surgery import head_weights, module_of
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.signals.layers import canonical
from steadygrad.signals.meanfield import gain
from steadygrad.training.setup import TrainingSetup

__all__ = [
    "LengthAndDirection",
    "StandardizedWeight",
    "hidden_weights",
    "make_picklable",
    "orthogonal_weights",
    "spectral_norm",
    "weight_norm",
    "weight_standardization",
]

_KEYS = "State-dict keys change. It has to come after initialization, which passes such weights over."


class StandardizedWeight(nn.Module):
    """A parametrization: each unit's weights with mean 0 and variance ``gain^2 / fan_in``.

    Args:
        gain: Standard deviation of the unit's output for inputs of mean square 1.

    Reference:
        Brock et al., Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets, 2021, sec.
        4.1, with a computed gain. https://arxiv.org/abs/2101.08692. Qiao et al. 2019 leave out the fan-in.
    """

    _LEAST = 1e-4  # of variance times fan-in, as in the paper: weights of zero still learn

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, weight: Tensor) -> Tensor:
        """Return the standardized weight, of the same shape."""
        dims = list(range(1, weight.dim()))
        variance, mean = torch.var_mean(weight, dims, correction=0, keepdim=True)
        fan_in = weight[0].numel()
        return (weight - mean) * (self.gain * (variance * fan_in).clamp_min(self._LEAST).rsqrt())

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Keep the weight as it is below the parametrization."""
        return weight

    def extra_repr(self) -> str:
        """Show the gain."""
        return f"gain={self.gain:.4g}"


class LengthAndDirection(nn.Module):
    """A parametrization: each unit's weights as a length times a direction.

    The same as ``torch.nn.utils.parametrizations.weight_norm``, which leaves a hook that cannot be pickled.
    """

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        """Return the weight."""
        return torch._weight_norm(direction, length, 0)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return length and direction of a weight."""
        return torch.norm_except_dim(weight, 2, 0), weight


def hidden_weights(model: nn.Module, blueprint: Blueprint) -> dict[nn.Module, str]:
    """Return the hidden Linear and Conv modules without a parametrization, each with the activation that follows it.

    Raises:
        NotApplicableError: If there is none.
    """
    heads = head_weights(blueprint)
    found: dict[nn.Module, str] = {}
    for position, layer in enumerate(blueprint.layers):
        if layer.role is not Role.LINEAR or position in heads:
            continue
        module = module_of(model, layer)
        plain = isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)
        if plain and not parametrize.is_parametrized(module):
            found[module] = canonical(layer.activation) if layer.activation else "identity"
    if not found:
        raise NotApplicableError(
            "parametrization: expected hidden Linear or Conv layers, found none that has no parametrization yet. "
            "Weights that functions use have to be changed in the model's code."
        )
    return found


def make_picklable(module: nn.Module) -> nn.Module:
    """Let a parametrized module be pickled, which torch refuses, and return it; it is rebuilt with the same numbers."""
    # On the class, where pickle looks: torch made it for this module and its copies alone.
    type(module).__reduce_ex__ = _reduce  # type: ignore[method-assign, assignment]
    return module


def _reduce(module: nn.Module, protocol: int) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
    lists: dict[str, Any] = dict(cast("nn.ModuleDict", module.parametrizations).items())
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    plain = kind.__new__(kind)
    plain.__dict__ |= module.__dict__
    plain._modules = {name: child for name, child in module._modules.items() if name != "parametrizations"}
    plain._parameters = dict(module._parameters)
    for name, each in lists.items():
        mode = each.training
        each.eval()  # in training mode, reading a weight would make a power iteration
        plain._parameters[name] = nn.Parameter(getattr(module, name).detach().clone())
        each.train(mode)
    return _rebuild, (plain, {name: list(each) for name, each in lists.items()}, module.state_dict())


def _rebuild(plain: nn.Module, lists: dict[str, list[nn.Module]], state: dict[str, Tensor]) -> nn.Module:
    for name, each in lists.items():
        for parametrization in each:
            parametrize.register_parametrization(plain, name, parametrization, unsafe=True)
    cast("nn.ModuleDict", plain.parametrizations).train(plain.training)
    plain.load_state_dict(state)
    return make_picklable(plain)


def _parametrize(setup: TrainingSetup, register: Callable[[nn.Module], nn.Module]) -> TrainingSetup:
    """Register a parametrization on every hidden weight that has no unit of zeros: those have no direction."""
    for module in hidden_weights(setup.model, read_blueprint(setup)):
        if bool(module.get_parameter("weight").flatten(1).any(1).all()):
            make_picklable(register(module))
    return setup


@remedy(
    Card(
        name="spectral_norm",
        treats=(Symptom.EXPLODING,),
        site=Site.MODEL,
        summary="Divide every hidden weight by its largest singular value.",
        reference="Miyato et al. 2018, https://arxiv.org/abs/1802.05957",
        hurts="All other singular values fall below 1, so the signal shrinks with depth. " + _KEYS,
        cost="two products of a matrix and a vector a layer and step",
        not_for="Vanishing, which it makes worse.",
        formula="W = V / sigma_max(V)",
    )
)
def spectral_norm(setup: TrainingSetup) -> TrainingSetup:
    """Hold every hidden weight at a spectral norm of 1, found by one power iteration a step."""
    return _parametrize(setup, parametrizations.spectral_norm)


@remedy(
    Card(
        name="orthogonal_weights",
        treats=(Symptom.EXPLODING, Symptom.VANISHING),
        site=Site.MODEL,
        summary="Keep every hidden weight orthogonal, throughout training.",
        reference="Lezcano-Casado and Martinez-Rubio 2019, https://arxiv.org/abs/1901.08428",
        hurts="Behind rectifiers the signal still halves with every layer; it is for tanh and its like. " + _KEYS,
        cost="the matrix decomposition of every layer, every step",
        not_for="Deep rectifier or sigmoid networks, which need a gain above 1.",
        formula="W = Q(V) with Q^T Q = 1",
    )
)
def orthogonal_weights(setup: TrainingSetup) -> TrainingSetup:
    """Hold every hidden weight, flattened to ``(out, fan_in)``, orthogonal.

    Raises:
        NotApplicableError: If the weights are of 16 bits, for which torch has no matrix decompositions.
    """
    dtypes = {p.dtype for p in setup.model.parameters()} & {torch.float16, torch.bfloat16}
    if dtypes:
        raise NotApplicableError(
            f"orthogonal_weights: expected weights of 32 or 64 bits, got {dtypes.pop()}, for which torch has no matrix "
            "decompositions. Keep the weights in float32 and use autocast."
        )
    return _parametrize(setup, parametrizations.orthogonal)


@remedy(
    Card(
        name="weight_norm",
        treats=(),
        site=Site.MODEL,
        summary="Learn length and direction of each unit's weights apart.",
        reference="Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868",
        hurts="Lengths are free to grow. " + _KEYS,
        cost="one read of the weights a step",
        not_for="Vanishing and exploding: the weights, and with them all gradients of activations, start as they were.",
        formula="w = g * v / |v|",
    )
)
def weight_norm(setup: TrainingSetup) -> TrainingSetup:
    """Split every hidden weight into length and direction; outputs stay as they were."""
    return _parametrize(
        setup, lambda module: parametrize.register_parametrization(module, "weight", LengthAndDirection())
    )


@remedy(
    Card(
        name="weight_standardization",
        treats=(Symptom.VANISHING, Symptom.EXPLODING, Symptom.INITIALIZATION),
        site=Site.MODEL,
        summary="Hold the weights of each unit at mean 0 and at the variance that the activation behind it needs.",
        reference="Brock et al. 2021, https://arxiv.org/abs/2101.08692; Qiao et al. 2019",
        hurts="A unit cannot fall silent by small weights. " + _KEYS,
        cost="one read of the weights a step",
        not_for="Saturation that the data bring: standardize the inputs too.",
        formula="W = gain * (V - mean) / (std * sqrt(fan_in)), by unit",
    )
)
def weight_standardization(setup: TrainingSetup) -> TrainingSetup:
    """Standardize every hidden weight, with the gain of the activation that follows."""
    for module, activation in hidden_weights(setup.model, read_blueprint(setup)).items():
        if module.get_parameter("weight")[0].numel() > 1:  # the only weight of a unit is its own mean
            standardized = StandardizedWeight(_gain(activation))
            make_picklable(parametrize.register_parametrization(module, "weight", standardized))
    return setup


def _gain(activation: str) -> float:
    try:
        return gain(activation)
    except UsageError:  # of a kind that mean-field theory does not know
        return 1.0
