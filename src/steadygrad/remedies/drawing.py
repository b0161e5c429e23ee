"""Where the weights of a network stand, what each should be, and how to draw it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Blueprint, Role
from steadygrad.remedies.activation import Step
from steadygrad.remedies.filling import orthogonal_
from steadygrad.remedies.surgery import activation_behind, head_weights, is_module_call, module_of, sources_through
from steadygrad.signals.meanfield import Activation, activation_by_kind, chi

__all__ = ["Draw", "Place", "draw_all_", "find_places", "is_linear_in_pairs"]

Draw = Callable[[Tensor, Activation, float], Tensor]
_DRAWN_ROLES = frozenset({Role.LINEAR, Role.RECURRENT, Role.ATTENTION})

# Rectifiers: activations for which random weights without biases keep gradients' mean square within 10 % a layer.
_RECTIFIER_BAND = (0.9, 1.1)
# For all others the pre-activations get the largest of these standard deviations at which gradients' mean square grows
# by at most 4 % a layer: 1 for sigmoid, 1/2 for tanh and softplus. Smaller ones train slower (30 layers on digits).
_STANDARD_DEVIATIONS = (1.0, 0.5, 0.25, 0.1)
_LARGEST_CHI = 1.04


@dataclass(frozen=True, slots=True)
class Place:
    """One module whose weights are drawn.

    Attributes:
        module: The module.
        activation: The hidden activation that follows, a module or the kind of a function; ``"identity"`` if none or
            an unknown one does.
        std: Wanted standard deviation of its output; 1 if no activation follows.
        centered: Whether its bias is to cancel each unit's mean.
        twins_in: Whether the second half of its inputs mirrors the first.
        twins_out: Whether the second half of its units is to mirror the first.
    """

    module: nn.Module
    activation: Activation
    std: float
    centered: bool
    twins_in: bool
    twins_out: bool


def find_places(model: nn.Module, blueprint: Blueprint, std: float | None) -> list[Place]:
    """Find the modules whose weights can be drawn, in execution order, and say what each is to give.

    Tied weights are drawn once, those of embeddings not at all, frozen and parametrized ones neither.

    Raises:
        NotApplicableError: If there is none.
        UsageError: If ``std`` is not positive.
    """
    if std is not None and not 0 < std < math.inf:
        raise UsageError(f"initialization: expected std above 0, got {std}. None chooses it by the activation.")
    embeddings = [module for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    taken = {id(parameter) for module in embeddings for parameter in module.parameters()}
    heads = head_weights(blueprint)
    plain = all(len(layer.follows) < 2 for layer in blueprint.layers)  # no shortcut
    twins: set[int] = set()
    places: dict[nn.Module, Place] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(model, layer)
        own = list(_matrices(module)) if layer.role in _DRAWN_ROLES else []
        if module in places or not own or any(id(p) in taken or not p.requires_grad for p in own):
            continue
        taken.update(id(p) for p in own)
        kind = "identity" if position in heads else _following(model, blueprint, position)
        sources = sources_through(blueprint, position)
        # A layer without an activation behind it reads what the activations before it give: means and all.
        decisive = [kind] if kind != "identity" else [_following(model, blueprint, source) for source in sources]
        folds = plain and _can_fold(module) and not layer.normalized
        rows, columns = own[0].shape[:2]
        if folds and kind != "identity" and (_is_rectifier(kind) or is_linear_in_pairs(kind)) and rows % 2 == 0:
            twins.add(position)
        places[module] = Place(
            module=module,
            activation=kind,
            std=1.0 if kind == "identity" else std or _target_std(kind),
            centered=not all(map(_is_rectifier, decisive)),
            twins_in=folds and bool(sources) and sources <= twins and columns % 2 == 0,
            twins_out=position in twins,
        )
    if not places:
        raise NotApplicableError(
            "initialization: expected trainable Linear, Conv, recurrent or attention modules that the model calls, "
            "found none. Weights used by functions or behind a parametrization keep their values."
        )
    return list(places.values())


def _following(model: nn.Module, blueprint: Blueprint, position: int) -> Activation:
    """Return the activation behind a layer, its own settings kept; ``"identity"`` for one that has no known gain."""
    layer = activation_behind(blueprint, position)
    if layer is None:
        return "identity"
    known, module = _has_gain(layer.kind), module_of(model, layer)
    if not is_module_call(model, layer) or not (known or isinstance(module, Step)):
        return layer.kind if known else "identity"
    module = copy.deepcopy(module)
    if hasattr(module, "inplace"):
        setattr(module, "inplace", False)  # noqa: B010  # the integrals need its input afterwards
    # The integrals of kinds are computed once, those of modules every time.
    usual = known and not list(module.parameters()) and repr(module) == repr(type(module)())
    return layer.kind if usual else module


def _has_gain(kind: str) -> bool:
    try:
        activation_by_kind(kind)
    except UsageError:
        return False
    return True


def _can_fold(module: nn.Module) -> bool:
    """Whether units and inputs of a module stand along the first two dimensions of its weight, all of them."""
    convolution = isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd) and module.groups == 1
    return convolution or isinstance(module, nn.Linear)


def _is_rectifier(kind: Activation) -> bool:
    low, high = _RECTIFIER_BAND
    return low < chi(kind) < high


def is_linear_in_pairs(activation: Activation) -> bool:
    """Whether ``f(z) - f(-z)`` is ``c z`` with ``c > 0``, as it is for ReLU, GELU, SiLU, softplus and hard-swish."""
    f = activation_by_kind(activation) if isinstance(activation, str) else activation
    z = torch.linspace(0.25, 10, 40, dtype=torch.float64)
    slopes = (f(z) - f(-z)) / z
    return bool(slopes[0] > 0) and torch.allclose(slopes, slopes[:1].expand_as(slopes), rtol=1e-9)


def _target_std(kind: Activation) -> float:
    if _is_rectifier(kind):
        return 1.0
    fitting = (std for std in _STANDARD_DEVIATIONS if chi(kind, std, centered=True) <= _LARGEST_CHI)
    return next(fitting, _STANDARD_DEVIATIONS[-1])


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield a module's own weights, none if it is of a kind that we cannot draw."""
    if isinstance(module, nn.MultiheadAttention):
        yield from (p for p in module.parameters() if p.dim() > 1)
    elif isinstance(module, (nn.Linear, _ConvNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase)):
        yield from (
            p for name, p in module.named_parameters(recurse=False) if name.startswith("weight") and p.dim() > 1
        )


def draw_all_(places: list[Place], draw: Draw, by_formula: bool) -> None:
    """Draw all weights; ``by_formula`` with the gains of the activations and without twins."""
    for place in places:
        kind, std = (place.activation, place.std) if by_formula else ("identity", 1.0)
        module = place.module
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            _draw_recurrent_(module, draw)
        elif isinstance(module, nn.MultiheadAttention):
            for weight in _matrices(module):
                # One matrix each for query, key and value.
                for part in weight.chunk(3) if weight is module.in_proj_weight else (weight,):
                    _draw_(part, draw, kind, std)
            _zero_(module._parameters["in_proj_bias"], module.out_proj.bias)
        else:
            for weight in _matrices(module):
                for part in _oriented(module, weight):
                    if by_formula:
                        _draw_(part, draw, kind, std)
                    else:
                        _draw_twins_(part, draw, place)
            _zero_(module._parameters["bias"])


def _oriented(module: nn.Module, weight: Tensor) -> tuple[Tensor, ...]:
    """Return a module's weight as parts of shape ``(out, in, *kernel)``, one a group of channels."""
    if isinstance(module, _ConvTransposeNd):
        return weight.transpose(0, 1).chunk(module.groups, dim=1)
    return weight.chunk(module.groups) if isinstance(module, _ConvNd) else (weight,)


def _draw_twins_(weight: Tensor, draw: Draw, place: Place) -> None:
    """Draw the quarter or half that the others mirror, then mirror it."""
    rows = weight.shape[0] // (1 + place.twins_out)
    columns = weight.shape[1] // (1 + place.twins_in)
    _draw_(weight[:rows, :columns], draw, "identity", 1.0)
    if place.twins_in:
        weight[:rows, columns:] = -weight[:rows, :columns]
    if place.twins_out:
        weight[rows:] = -weight[:rows]


def _draw_recurrent_(module: nn.RNNBase | nn.RNNCellBase, draw: Draw) -> None:
    """Draw gate by gate; what leads from state to state is orthogonal. Biases are kept: they may open gates."""
    for name, weight in module.named_parameters(recurse=False):
        if name.startswith("weight"):
            for gate in weight.split(module.hidden_size) if "_hr" not in name else (weight,):
                _draw_(gate, orthogonal_ if "_hh" in name else draw, "identity", 1.0)


def _draw_(weight: Tensor, draw: Draw, kind: Activation, std: float) -> None:
    # Half precision has no QR decomposition, and a transposed weight no flat view.
    dtype = weight.dtype if weight.dtype is torch.float64 else torch.float32
    weight.copy_(draw(torch.empty(weight.shape, dtype=dtype, device=weight.device), kind, std))


def _zero_(*biases: Tensor | None) -> None:
    for bias in biases:
        if bias is not None:
            bias.zero_()
