"""Dynamical isometry at any depth: plain networks that start as a nearly linear, orthogonal map."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError
from steadygrad.remedies.drawing import Place, draw_all_, find_places
from steadygrad.remedies.filling import delta_orthogonal_
from steadygrad.remedies.lsuv import calibrate_
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.signals.meanfield import Activation, activation_by_kind, chi, gain
from steadygrad.training import Batch, first_batch
from steadygrad.training.setup import TrainingSetup

__all__ = ["depth_std", "isometric_"]

_MOST_GROWTH = math.log(1.5)  # zeta of Martens et al. 2021, sec. 6: chi of the whole network
_SMALLEST, _LARGEST, _BISECTIONS = 1e-4, 1.0, 20
_RESCALINGS = 3  # states are nearly linear in the weight that is rescaled


def depth_std(activation: Activation, layers: int, pairs: bool = False) -> float:
    """Return the largest standard deviation of pre-activations, up to 1, at which ``chi ** layers`` is at most 1.5.

    Gradients' mean square then grows by at most half over the whole network. ``chi - 1`` is about ``4 std^4 / 3`` for
    tanh, so the standard deviation shrinks with the fourth root of the depth only.

    Args:
        activation: Kind, module or function.
        layers: How many such activations a signal passes.
        pairs: Whether units come in mirrored pairs, so that the next layer reads ``f(z) - f(-z)``.

    Example:
        >>> [round(depth_std("tanh", layers), 3) for layers in (100, 1000, 10000)]
        [0.255, 0.136, 0.075]
        >>> depth_std("relu", 10000, pairs=True)
        1.0
    """
    f = activation_by_kind(activation) if isinstance(activation, str) else activation
    seen = (lambda z: f(z) - f(-z)) if pairs else f
    high = _LARGEST
    if _growth(seen, high) * layers <= _MOST_GROWTH:
        return high
    low = _SMALLEST
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        if _growth(seen, middle) * layers <= _MOST_GROWTH:
            low = middle
        else:
            high = middle
    return low


@torch.no_grad()
def isometric_(setup: TrainingSetup, batch: Batch | None = None) -> None:
    """Draw a plain network of any depth as a nearly linear isometry, in place on the set-up's model.

    Every layer is orthogonal, its bias cancels the mean of each unit over the batch, and its weight is rescaled so that
    its outputs have the standard deviation of :func:`depth_std`; the head's have 1. Activations for which
    ``f(z) - f(-z)`` is linear (ReLU, GELU, SiLU, softplus) get mirrored pairs of units, with which the network is
    linear exactly; others (tanh, sigmoid, hard-sigmoid) work in their linear part, the more so the deeper it is.
    A tanh ``nn.RNN`` is as deep as its sequence is long: its map from state to state is orthogonal times the
    gain, the one from the inputs rescaled for pre-activations of that standard deviation at most.

    Args:
        setup: Its model is changed.
        batch: The batch to calibrate on; by default the first of the training data.

    Raises:
        NotApplicableError: If the network has shortcuts, normalizations, or other weights than Linear, Conv and
            tanh ``nn.RNN`` of one layer and direction.

    Reference:
        Saxe et al., Exact Solutions to the Nonlinear Dynamics of Learning, 2014. https://arxiv.org/abs/1312.6120
        Pennington et al., Resurrecting the Sigmoid, 2017. https://arxiv.org/abs/1711.04735
        Balduzzi et al., The Shattered Gradients Problem, 2017, sec. 4. https://arxiv.org/abs/1702.08591
        Henaff et al., Recurrent Orthogonal Networks and Long-Memory Tasks, 2016. https://arxiv.org/abs/1602.06662
        Martens et al., Rapid Training of Deep Neural Networks without Skip Connections or Normalization Layers, 2021,
        sec. 6 (one budget for the whole depth; they deform the activation, here its inputs are scaled).
        https://arxiv.org/abs/2110.01765
    """
    batch = first_batch(setup) if batch is None else batch
    blueprint = read_blueprint(setup, batch)
    places = find_places(setup.model, blueprint, None)
    plain = all(len(layer.follows) < 2 and not layer.normalized for layer in blueprint.layers)
    if not plain or not all(_fits(place.module) for place in places):
        raise NotApplicableError(
            "isometric: expected a plain network of Linear and Conv layers, or nn.RNN with tanh, one layer and one "
            "direction, found shortcuts, normalizations or other weights. Use method='lsuv'."
        )
    hidden = [place for place in places if place.activation != "identity"]
    stds: dict[str, float] = {}
    for place in hidden:
        if (key := _key(place)) not in stds:
            stds[key] = depth_std(place.activation, len(hidden), place.twins_out)
    places = [replace(place, std=stds.get(_key(place), 1.0), centered=True) for place in places]
    draw_all_(places, delta_orthogonal_, by_formula=False)
    recurrent = [place.module for place in places if isinstance(place.module, nn.RNN)]
    handles = [module.register_forward_pre_hook(_rescale_states) for module in recurrent]
    try:
        calibrate_(setup, places, batch)
    finally:
        for handle in handles:
            handle.remove()


def _rescale_states(module: nn.RNN, args: tuple[Tensor, ...]) -> None:
    """Rescale both maps, so that pre-activations get and keep the deviation that suits the number of time steps."""
    x = args[0]
    if not isinstance(x, Tensor) or x.dim() != 3:
        raise NotApplicableError(
            f"isometric: expected batches of sequences of shape (samples, steps, features), got {type(x).__name__} at "
            f"{module}. Use method='orthogonal_recurrent'."
        )
    time, samples = (1, 0) if module.batch_first else (0, 1)
    weight = module.get_parameter("weight_ih_l0")
    std = depth_std("tanh", x.shape[time])
    factor = gain("tanh", std)
    module.get_parameter("weight_hh_l0").mul_(factor)
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            parameter.zero_()
    for _ in range(_RESCALINGS):
        states, _ = nn.RNN.forward(module, x)  # without hooks, of which this is one
        largest = states.var(samples, correction=0).mean(-1).max().sqrt()
        if 0 < largest < math.inf:
            weight.mul_(std / factor / largest)


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.RNN):
        return module.nonlinearity == "tanh" and module.num_layers == 1 and not module.bidirectional
    return isinstance(module, (nn.Linear, _ConvNd))


def _growth(activation: Activation, std: float) -> float:
    return math.log(max(chi(activation, std, centered=True), sys.float_info.min))  # steps have slope 0


def _key(place: Place) -> str:
    return f"{place.activation!r} {place.twins_out}"
