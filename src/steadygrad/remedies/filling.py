"""Fill one weight: the formulas of the literature, with the gain of the activation that follows."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from steadygrad.signals.layers import fan
from steadygrad.signals.meanfield import Activation, gain

__all__ = [
    "Distribution",
    "Mode",
    "delta_orthogonal_",
    "he_",
    "lecun_",
    "orthogonal_",
    "scaled_",
    "small_",
    "xavier_",
]

Distribution = Literal["normal", "uniform", "truncated"]
Mode = Literal["fan_in", "fan_out", "fan_avg"]

_TRUNCATED = 0.87962566103423978  # standard deviation of N(0, 1) cut off at -2 and 2


@torch.no_grad()
def small_(weight: Tensor, s: float = 0.01, distribution: Distribution = "normal") -> Tensor:
    """Fill a weight with ``N(0, s^2)``, or ``U(-s, s)`` if uniform, in place.

    The scale takes no notice of the layer's width, so the signal of deep networks vanishes: 20 ReLU layers of 256 units
    at 0.01 leave 1e-19 of it.
    """
    return nn.init.uniform_(weight, -s, s) if distribution == "uniform" else _fill_(weight, s, distribution)


@torch.no_grad()
def scaled_(
    weight: Tensor,
    activation: Activation = "identity",
    std: float = 1.0,
    mode: Mode = "fan_in",
    distribution: Distribution = "normal",
) -> Tensor:
    """Fill a weight with mean 0 and variance ``gain^2 / fan``, in place.

    Args:
        weight: Shape ``(out, in, *kernel)``.
        activation: The one that follows the layer.
        std: Standard deviation of the pre-activations that the gain is taken at.
        mode: ``"fan_in"`` keeps the signal's size on the way forward, ``"fan_out"`` the gradient's on the way back,
            each with the gain that does so; ``"fan_avg"`` is their mean with the forward gain.
        distribution: ``"truncated"`` is a normal one cut off at two standard deviations.

    Reference:
        He et al., Delving Deep into Rectifiers, 2015, eq. 10 and 14. https://arxiv.org/abs/1502.01852
    """
    fan_in, fan_out = fan(weight)
    size = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    factor = gain(activation, std, direction="backward" if mode == "fan_out" else "forward")
    return _fill_(weight, factor / math.sqrt(max(size, 1)), distribution)


def xavier_(
    weight: Tensor, activation: Activation = "identity", std: float = 1.0, distribution: Distribution = "uniform"
) -> Tensor:
    """Fill a weight with variance ``gain^2 * 2 / (fan_in + fan_out)``, in place; arguments as for :func:`scaled_`.

    Reference:
        Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks, 2010, eq. 16.
    """
    return scaled_(weight, activation, std, "fan_avg", distribution)


def he_(
    weight: Tensor,
    activation: Activation = "relu",
    std: float = 1.0,
    mode: Mode = "fan_in",
    distribution: Distribution = "normal",
) -> Tensor:
    """Fill a weight with variance ``gain^2 / fan``, 2 for ReLU, in place; see :func:`scaled_`.

    Reference:
        He et al., Delving Deep into Rectifiers, 2015, eq. 10. https://arxiv.org/abs/1502.01852
    """
    return scaled_(weight, activation, std, mode, distribution)


def lecun_(weight: Tensor, mode: Mode = "fan_in", distribution: Distribution = "normal") -> Tensor:
    """Fill a weight with variance ``1 / fan``, whatever follows, in place; what SELU wants.

    Reference:
        LeCun et al., Efficient BackProp, 1998, eq. 16. Klambauer et al. 2017. https://arxiv.org/abs/1706.02515
    """
    return scaled_(weight, "identity", 1.0, mode, distribution)


@torch.no_grad()
def orthogonal_(weight: Tensor, activation: Activation = "identity", std: float = 1.0) -> Tensor:
    """Fill a weight, flattened to ``(out, fan_in)``, with a random orthogonal matrix times the gain, in place.

    Arguments as for :func:`scaled_`.

    Reference:
        Saxe et al., Exact Solutions to the Nonlinear Dynamics of Learning, 2014. https://arxiv.org/abs/1312.6120
    """
    return nn.init.orthogonal_(weight, gain(activation, std))


@torch.no_grad()
def delta_orthogonal_(weight: Tensor, activation: Activation = "identity", std: float = 1.0) -> Tensor:
    """Fill a convolution's weight with 0, but an orthogonal matrix times the gain at the kernel's center, in place.

    The norm of an image survives any number of such layers, if no output has fewer channels than its input and the
    kernel is odd and padded to keep the size. A weight without a kernel is filled by :func:`orthogonal_`.

    Args:
        weight: Shape ``(out, in, *kernel)``; the center of an even kernel is the right one of its two middles.
        activation: The one that follows the layer.
        std: Standard deviation of the pre-activations that the gain is taken at.

    Reference:
        Xiao et al., Dynamical Isometry and a Mean Field Theory of CNNs, 2018, algorithm 1.
        https://arxiv.org/abs/1806.05393
    """
    center = weight.zero_()
    for size in weight.shape[2:]:
        center = center.select(2, size // 2)
    center.copy_(orthogonal_(weight.new_empty(weight.shape[:2]), activation, std))
    return weight


def _fill_(weight: Tensor, std: float, distribution: Distribution) -> Tensor:
    if distribution == "uniform":
        return nn.init.uniform_(weight, -math.sqrt(3) * std, math.sqrt(3) * std)
    if distribution == "truncated":
        wide = std / _TRUNCATED
        return nn.init.trunc_normal_(weight, 0.0, wide, -2 * wide, 2 * wide)
    return nn.init.normal_(weight, 0.0, std)
