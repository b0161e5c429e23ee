"""Kinds of units: what a layer of a Boltzmann machine can be made of.

A layer of units ``s`` with the field ``x`` (what the other layer sends, biases included where the kind has them) is
distributed as ``exp(-energy(s) + observed(s) . (x - offset))``. Every kind tells its mean, draws its states, and knows
its cumulant ``log sum_s`` (or integral) of that. Shapes: states, fields and means are ``(rows, size)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Bernoulli", "Gaussian", "NoisyReLU", "Softmax", "Units", "column_mean", "kernels_for"]

# Nodes of a Gauss-Legendre rule on [0, 1]; 24 of them integrate the dilogarithm below to about 1e-15.
_NODES, _WEIGHTS = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(24))
_NODES = _NODES + 0.5
_LARGE = 2**14  # entries from which compiled loops are worth their start


@dataclass(eq=False)
class Units(ABC):
    """A layer of one kind of units.

    Attributes:
        bias: Shape ``(size,)``.
    """

    bias: Tensor

    exact = True
    """Whether means, samples and cumulants belong to one distribution exactly, so that likelihoods are defined."""

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.bias)

    @property
    def offset(self) -> Tensor:
        """What the field holds besides the other layer's signal, shape ``(size,)``."""
        return self.bias

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What is learned, by name."""
        return {"bias": self.bias}

    def observed(self, states: Tensor) -> Tensor:
        """Return states as the weights see them."""
        return states

    def energy(self, states: Tensor) -> Tensor:
        """Return the part of the energy that does not touch the weights, shape ``(rows,)``."""
        return -states @ self.bias

    @abstractmethod
    def mean_(self, field: Tensor) -> Tensor:
        """Turn fields into means, in place."""

    @abstractmethod
    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Turn fields into states drawn at random, in place."""

    def mean_and_sample_(self, field: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the means and states of fields; the fields are overwritten."""
        mean = self.mean_(field.clone())
        return mean, self.sample_(field, generator)

    @abstractmethod
    def cumulant(self, field: Tensor) -> Tensor:
        """Return ``log sum_s exp(-energy(s) + observed(s) . (field - offset))``, shape ``(rows,)``."""

    def log_prob(self, states: Tensor, field: Tensor) -> Tensor:
        """Return ``log p(states)`` for that field, shape ``(rows,)``; a density for real units."""
        sent = (self.observed(states) * (field - self.offset)).sum(1)
        return sent - self.energy(states) - self.cumulant(field)

    def gradients(self, states: Tensor, other: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return the mean over rows of the derivative of the negative energy by each parameter, in float32 or more.

        Args:
            states: Shape ``(rows, size)``; means will do where the derivative is linear in the states.
            other: What the weights see of the other layer, means will do, shape ``(rows, n)``.
            weight: Shape ``(size, n)``.
        """
        return {"bias": column_mean(states)}

    def add_(self, changes: dict[str, Tensor]) -> None:
        """Add to the parameters, in place."""
        for name, change in changes.items():
            self.parameters[name].add_(change)

    def copy_(self, other: Units) -> None:
        """Take over the parameters of another layer of the same form."""
        for mine, its in zip(self.parameters.values(), other.parameters.values(), strict=True):
            mine.copy_(its)

    @property
    def scale(self) -> Tensor | float:
        """How far a unit's mean moves for one unit of its field, at the origin of the field's scale."""
        return 1.0

    def base(self, bias: Tensor) -> Self:
        """Return the layer with another bias as the start of annealing."""
        return replace(self, bias=bias)

    def configurations(self) -> int:
        """Return how many states the layer has; 0 if it cannot be enumerated."""
        return 0

    def all_states(self, start: int, stop: int) -> Tensor:
        """Return the states of those numbers, shape ``(stop - start, size)``, in the bias' dtype."""
        raise NotImplementedError

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Self:
        """Return the layer with its parameters as another dtype or elsewhere; they are always copied."""
        return replace(self, **{k: v.to(dtype=dtype, device=device, copy=True) for k, v in self.parameters.items()})


class Bernoulli(Units):
    """Units that are 0 or 1; data may also be probabilities in between."""

    def mean_(self, field: Tensor) -> Tensor:
        """Turn fields into probabilities of a 1, in place."""
        return field.sigmoid_()

    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Turn fields into zeros and ones, in place."""
        if kernels := kernels_for(field):
            return kernels.draw_(field, None, generator)
        probabilities = field.sigmoid_()
        return torch.lt(_uniform(field, generator), probabilities, out=field)

    def mean_and_sample_(self, field: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return probabilities and states with one sigmoid."""
        mean = torch.empty_like(field)
        if kernels := kernels_for(field):
            return mean, kernels.draw_(field, mean, generator)
        torch.sigmoid(field, out=mean)
        return mean, torch.lt(_uniform(field, generator), mean, out=field)

    def cumulant(self, field: Tensor) -> Tensor:
        """Return the sum of softplus."""
        return F.softplus(field).sum(1)

    def configurations(self) -> int:
        """Two to the size."""
        return 2**self.size

    def all_states(self, start: int, stop: int) -> Tensor:
        """Return binary numbers, lowest digit first."""
        numbers = torch.arange(start, stop, device=self.bias.device)
        return (numbers[:, None] >> torch.arange(self.size, device=self.bias.device) & 1).to(self.bias.dtype)


@dataclass(eq=False)
class Gaussian(Units):
    """Real units with a learned variance each; visible side only.

    The energy is ``u^2/2 - u . W h`` with ``u = (v - bias) / sigma``, so that learning does not depend on the origin
    and unit of the data.

    Attributes:
        log_variance: ``log sigma^2``, shape ``(size,)``.

    Reference:
        Cho et al., Improved Learning of Gaussian-Bernoulli Restricted Boltzmann Machines, 2011, sec. 3, with
        ``v - bias`` instead of ``v`` in the interaction.
    """

    log_variance: Tensor

    @property
    def sigma(self) -> Tensor:
        """The standard deviation of each unit given the hidden ones, shape ``(size,)``."""
        return (self.log_variance / 2).exp()

    @property
    def offset(self) -> Tensor:
        """Zero: the bias is the origin of the units."""
        return torch.zeros_like(self.bias)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Bias and log variance."""
        return {"bias": self.bias, "log_variance": self.log_variance}

    def observed(self, states: Tensor) -> Tensor:
        """Return ``(v - bias) / sigma``."""
        return (states - self.bias) / self.sigma

    def energy(self, states: Tensor) -> Tensor:
        """Return half the squared distance from the bias in standard deviations."""
        return self.observed(states).square().sum(1) / 2

    def mean_(self, field: Tensor) -> Tensor:
        """Return ``bias + sigma * field``, in place."""
        return field.mul_(self.sigma).add_(self.bias)

    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from a normal distribution, in place."""
        noise = torch.empty_like(field, dtype=torch.float32).normal_(generator=generator)
        return self.mean_(field.add_(noise))

    def cumulant(self, field: Tensor) -> Tensor:
        """Return the logarithm of the Gaussian integrals."""
        constant = (math.log(2 * math.pi) * self.size + self.log_variance.sum()) / 2
        return field.square().sum(1) / 2 + constant

    def gradients(self, states: Tensor, other: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return the derivatives by bias and log variance."""
        u, signal = self.observed(states), other @ weight.t()
        return {
            "bias": column_mean(u - signal) / self.sigma.to(torch.float32),
            "log_variance": column_mean(u * (u - signal)) / 2,
        }

    @property
    def scale(self) -> Tensor:
        """Sigma."""
        return self.sigma


@dataclass(eq=False)
class Softmax(Units):
    """Groups of ``classes`` units of which exactly one is 1: labels, or categorical data one-hot.

    Attributes:
        classes: Units in a group; the size is a multiple of it.
    """

    classes: int

    def _groups(self, field: Tensor) -> Tensor:
        return field.view(len(field), -1, self.classes)

    def mean_(self, field: Tensor) -> Tensor:
        """Return the probabilities of each class, in place."""
        return field.copy_(self._groups(field).softmax(2).view_as(field))

    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one class a group, in place: the largest field after Gumbel noise."""
        noise = torch.empty_like(field, dtype=torch.float32).exponential_(generator=generator).log_()
        winners = self._groups(field - noise).argmax(2, keepdim=True)
        self._groups(field.zero_()).scatter_(2, winners, 1.0)
        return field

    def cumulant(self, field: Tensor) -> Tensor:
        """Return the sum over groups of log-sum-exp."""
        return self._groups(field).logsumexp(2).sum(1)

    def configurations(self) -> int:
        """The number of classes to the number of groups."""
        return self.classes ** (self.size // self.classes)

    def all_states(self, start: int, stop: int) -> Tensor:
        """Return one-hot groups, first group fastest."""
        numbers = torch.arange(start, stop, device=self.bias.device)
        powers = self.classes ** torch.arange(self.size // self.classes, device=self.bias.device)
        digits = numbers[:, None] // powers % self.classes
        return F.one_hot(digits, self.classes).flatten(1).to(self.bias.dtype)


class NoisyReLU(Units):
    """Rectified linear units with noise: infinitely many binary copies with biases shifted by -0.5, -1.5, ...

    Means and samples are the published approximations ``max(0, x)`` and ``max(0, x + N(0, sigmoid(x)))``; the cumulant
    is the integral of softplus, which the sum over copies approaches. These belong to one distribution only nearly, so
    likelihoods are declined (``exact`` is False).

    Reference:
        Nair and Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, 2010, sec. 2.
    """

    exact = False

    def mean_(self, field: Tensor) -> Tensor:
        """Rectify, in place."""
        return field.relu_()

    def sample_(self, field: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of variance ``sigmoid(field)`` and rectify, in place."""
        noise = torch.empty_like(field, dtype=torch.float32).normal_(generator=generator)
        return field.add_(noise.mul_(field.sigmoid().sqrt_())).relu_()

    def cumulant(self, field: Tensor) -> Tensor:
        """Return the sum of ``-Li2(-exp(field))``."""
        small = _dilogarithm((-field.abs()).exp())
        return torch.where(field > 0, field.square() / 2 + math.pi**2 / 6 - small, small).sum(1)


def kernels_for(tensor: Tensor) -> ModuleType | None:
    """Return the compiled loops where they pay and numba is installed, else None."""
    fit = tensor.dtype in (torch.float32, torch.bfloat16) and tensor.device.type == "cpu" and tensor.is_contiguous()
    return _kernels() if fit and tensor.numel() >= _LARGE else None


@cache
def _kernels() -> ModuleType | None:
    try:
        return import_module("steadygrad.boltzmann.kernels")
    except ImportError:  # numba is missing or does not fit this numpy: torch does the same
        return None


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise in (0, 1) to compare with probabilities.

    Random integers cut into pieces are two to four times as fast as ``uniform_``: 32 bits a number, and 16 for
    bfloat16, whose probabilities have 8. Half a step is added, so that probabilities are rounded to the nearest step.
    """
    if like.dtype == torch.float64:
        return torch.empty_like(like).uniform_(generator=generator)
    piece, bits = (torch.int16, 16) if like.dtype == torch.bfloat16 else (torch.int32, 32)
    drawn = torch.empty(-(-like.numel() * bits // 64), dtype=torch.int64, device=like.device)
    drawn.random_(-(2**63), None, generator=generator)
    pieces = drawn.view(piece)[: like.numel()].view(like.shape)
    return pieces.to(torch.float32).add_(2.0 ** (bits - 1) + 0.5).mul_(2.0**-bits)


def column_mean(values: Tensor) -> Tensor:
    """Return the mean over rows, in float32 or more."""
    if values.dtype == torch.bfloat16 and (kernels := kernels_for(values)):
        return kernels.column_mean(values)
    return values.mean(0, dtype=torch.promote_types(values.dtype, torch.float32))


def _dilogarithm(y: Tensor) -> Tensor:
    """Return ``-Li2(-y) = integral over t in [0, 1] of log(1 + y t) / t`` for ``y`` in [0, 1]."""
    nodes, weights = _NODES.to(y), _WEIGHTS.to(y)
    return (torch.log1p(y[..., None] * nodes) / nodes) @ weights
