"""Mean-field numbers of an activation: what it does to variances on the way forward and backward.

All numbers are expectations over Gaussian pre-activations ``x = q z``, ``z ~ N(0, 1)`` (Poole et al. 2016, Schoenholz
et al. 2017). The integrals run over panels of Gauss-Legendre nodes with edges at every multiple of 1/2, not over
Gauss-Hermite nodes, because the corners of ReLU, ReLU6 or hard-sigmoid lie there: errors are near 1e-12 with corners
and without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.signals.layers import canonical

__all__ = ["Activation", "GaussianMoments", "activation_by_kind", "chi", "gain", "gaussian_moments"]

Activation = str | nn.Module | Callable[[Tensor], Tensor]
"""The kind of an activation as a blueprint names it (``"ReLU"``, ``"relu"``), a module or a function, elementwise."""

_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "celu": F.celu,
    "elu": F.elu,
    "gelu": F.gelu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "identity": torch.clone,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "prelu": lambda x: F.leaky_relu(x, 0.25),  # the slope that torch starts from
    "relu": F.relu,
    "relu6": F.relu6,
    "rrelu": F.rrelu,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
}

_CUT = 12.0  # standard deviations; the Gaussian weight beyond is below 1e-32
_NODES = 24  # a panel


class GaussianMoments(NamedTuple):
    """Expectations of an activation ``f`` over ``x ~ N(0, q^2)``."""

    mean: float  # E f(x)
    second: float  # E f(x)^2
    slope: float  # E f'(x)^2

    @property
    def variance(self) -> float:
        """``E f(x)^2 - (E f(x))^2``, the part of the output that tells inputs apart."""
        return self.second - self.mean**2


def activation_by_kind(kind: str) -> Callable[[Tensor], Tensor]:
    """Return the activation of that kind, spelt as the module (``"LeakyReLU"``) or the function (``"leaky_relu"``).

    Raises:
        UsageError: If the kind is unknown or not elementwise.
    """
    key = canonical(kind)
    if key not in _KINDS:
        near = get_close_matches(key, _KINDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Pass the activation itself, a module or a function."
        raise UsageError(f"activation: expected an elementwise activation, got {kind!r}. {hint}")
    return _KINDS[key]


def gaussian_moments(activation: Activation, q: float = 1.0) -> GaussianMoments:
    """Integrate an activation against Gaussian pre-activations of standard deviation ``q``.

    Args:
        activation: Kind, module or function; computed in float64 on the CPU.
        q: Standard deviation of the pre-activations, above 0.

    Raises:
        UsageError: If ``q`` is not positive or the kind is unknown.
    """
    if not q > 0:
        raise UsageError(f"gaussian_moments: expected q above 0, got {q}. It is a standard deviation.")
    if isinstance(activation, str):
        return _moments_of_kind(activation_by_kind(activation), float(q))
    if isinstance(activation, nn.Module):
        activation = copy.deepcopy(activation).to("cpu", torch.float64).eval()
    return _integrate(activation, float(q))


def gain(
    activation: Activation,
    q: float = 1.0,
    direction: Literal["forward", "backward"] = "forward",
    centered: bool = False,
) -> float:
    """Return the factor on ``1/sqrt(fan_in)`` for random weights that keep the signal's size through an activation.

    Args:
        activation: Kind, module or function.
        q: Standard deviation of the pre-activations to keep.
        direction: ``"forward"`` keeps the pre-activations' second moment, ``q / sqrt(E f^2)``; ``"backward"`` keeps the
            gradients', ``1 / sqrt(E f'^2)``.
        centered: Whether biases cancel the mean of the activation: ``q / sqrt(Var f)`` then.

    Example:
        >>> round(gain("relu"), 3), round(gain("tanh"), 3), round(gain("sigmoid", direction="backward"), 3)
        (1.414, 1.593, 4.723)

    Reference:
        He et al., Delving Deep into Rectifiers, 2015, eq. 10 and 14. https://arxiv.org/abs/1502.01852
    """
    moments = gaussian_moments(activation, q)
    if direction == "backward":
        return moments.slope**-0.5
    return q * (moments.variance if centered else moments.second) ** -0.5


def chi(activation: Activation, q: float = 1.0, centered: bool = False) -> float:
    """Return the factor per layer on the gradients' mean square where weights keep the signal with :func:`gain`.

    Below 1 gradients vanish with depth and inputs grow alike; above 1 gradients explode.

    Example:
        >>> round(chi("relu"), 2)
        1.0
        >>> round(chi("sigmoid"), 2), round(chi("sigmoid", q=0.5, centered=True), 2)
        (0.15, 1.0)

    Reference:
        Schoenholz et al., Deep Information Propagation, 2017, eq. 5. https://arxiv.org/abs/1611.01232
    """
    return gain(activation, q, centered=centered) ** 2 * gaussian_moments(activation, q).slope


@lru_cache(maxsize=256)
def _moments_of_kind(function: Callable[[Tensor], Tensor], q: float) -> GaussianMoments:
    return _integrate(function, q)


def _integrate(function: Callable[[Tensor], Tensor], q: float) -> GaussianMoments:
    reach = _CUT * q
    corners = np.arange(np.ceil(-2 * reach), np.floor(2 * reach) + 1) / 2
    edges = np.unique(np.concatenate([np.linspace(-reach, reach, 49), corners]))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    x = (middle[:, None] + half[:, None] * nodes).ravel()
    density = np.exp(-0.5 * (x / q) ** 2) / (q * np.sqrt(2 * np.pi))
    mass = torch.from_numpy((half[:, None] * weights).ravel() * density)
    with torch.enable_grad():
        points = torch.from_numpy(x).requires_grad_()
        value = function(points)
        (slope,) = torch.autograd.grad(value.sum(), points)
    value = value.detach()
    return GaussianMoments(*(float((mass * y).sum()) for y in (value, value.square(), slope.square())))
