"""What is what in Keras, in the terms of the rules: roles of layers, names of activations, fans of weights."""

from __future__ import annotations

import math
from typing import Any

from keras import layers
from torch import Tensor

from steadygrad.records import Role

__all__ = ["Layer", "activation_name", "fans_of", "is_opaque", "kind_of", "parts_of", "role_of"]

Layer = Any
"""A ``keras.Layer``; Keras has no types."""

ROLES: tuple[tuple[Role, tuple[type, ...]], ...] = (
    (Role.ATTENTION, (layers.MultiHeadAttention, layers.GroupQueryAttention)),
    (Role.RECURRENT, (layers.RNN,)),
    (Role.EMBEDDING, (layers.Embedding,)),
    (
        Role.NORMALIZATION,
        (
            layers.BatchNormalization,
            layers.LayerNormalization,
            layers.GroupNormalization,
            layers.RMSNormalization,
            layers.UnitNormalization,
        ),
    ),
    (
        Role.ACTIVATION,
        (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax),
    ),
)
OPAQUE = (layers.MultiHeadAttention, layers.GroupQueryAttention, layers.RNN, layers.TimeDistributed)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
FANLESS = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TORCH_NAMES = {
    "hard_sigmoid": "hardsigmoid",
    "hard_tanh": "hardtanh",
    "hard_silu": "hardswish",
    "log_sigmoid": "logsigmoid",
    "hard_shrink": "hardshrink",
    "soft_shrink": "softshrink",
    "tanh_shrink": "tanhshrink",
}


def role_of(layer: Layer) -> Role:
    """Return what a layer does; a leaf of unknown class with a matrix of its own counts as linear."""
    for role, kinds in ROLES:
        if isinstance(layer, kinds):
            return role
    leaf = is_opaque(layer) or not parts_of(layer)
    return Role.LINEAR if leaf and any(len(v.shape) > 1 for v in layer.weights) else Role.OTHER


def is_opaque(layer: Layer) -> bool:
    """Whether a layer is seen as one from outside: attention, and what repeats its parts in a loop."""
    return isinstance(layer, OPAQUE)


def parts_of(layer: Layer) -> list[Layer]:
    """Return the layers right inside of a layer, its activation not counted."""
    activation = getattr(layer, "activation", None)
    return [part for part in layer._layers if part is not activation]


def kind_of(layer: Layer) -> str:
    """Return the class name of a layer; the function of one that only applies a function."""
    if isinstance(layer, layers.Activation):
        return activation_name(layer.activation)
    if isinstance(layer, layers.ReLU) and layer.negative_slope:
        return "LeakyReLU"
    return type(layer).__name__


def activation_name(function: Any) -> str:
    """Return the name of an activation function as torch has it; ``"linear"`` for none."""
    name = getattr(function, "__name__", type(function).__name__)
    return TORCH_NAMES.get(name, name)


def fans_of(layer: Layer, weights: list[Tensor]) -> tuple[int, int] | None:
    """Return fan-in and fan-out of a layer's first matrix, of shape ``(*kernel, in, out)``; None where they mix."""
    matrices = [weight for weight in weights if weight.dim() > 1]
    if not matrices or isinstance(layer, FANLESS) or role_of(layer) in (Role.EMBEDDING, Role.ATTENTION):
        return None
    if isinstance(layer, layers.EinsumDense) and matrices[0].dim() > 2:
        return None
    *kernel, fan_in, fan_out = matrices[0].shape
    if isinstance(layer, TRANSPOSED):
        fan_in, fan_out = fan_out, fan_in
    if isinstance(layer, DEPTHWISE):
        fan_in = 1
    return fan_in * math.prod(kernel), fan_out * math.prod(kernel)
