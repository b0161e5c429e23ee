"""Transforms that change every step: centralization, normalization, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from steadygrad.errors import UsageError
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.sharding import check_whole_units, shard_like
from steadygrad.remedies.thresholds import positive

__all__ = ["centralize_gradients", "gradient_noise", "normalize_gradients"]

_NOISE_DECAY = 0.55  # sec. 3 of the paper
_SEED_STRIDE = 1_000_003  # steps between the streams of two seeds


def centralize_gradients() -> GradientTransform:
    """Subtract the mean of each unit's gradient: ``g - mean(g)`` over all dimensions but the first.

    Vectors, as biases, stay as they are.

    Reference:
        Yong et al., Gradient Centralization, 2020, eq. 1. https://arxiv.org/abs/2004.01461
    """

    def init(parameters: Sequence[Tensor]) -> State:
        check_whole_units("centralize_gradients", parameters)
        return {}

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        for tensor, parameter in zip(gradients.edit(), gradients.parameters, strict=True):
            if parameter.dim() > 1:
                dims = tuple(range(1, parameter.dim()))  # of a complex gradient the last one holds its parts
                tensor.sub_(tensor.mean(dims, keepdim=True))
        return state

    return GradientTransform(init, update, "centralize_gradients")


def normalize_gradients(over: Literal["all", "each"] = "all") -> GradientTransform:
    """Scale gradients to norm 1: ``g / |g|``, for all together or for each parameter's.

    Every step then has the length of the learning rate, which has to fall for the training to come to rest. Gradients
    that are zero or not finite stay as they are.

    Args:
        over: ``"all"`` keeps the direction; ``"each"`` gives every parameter a step of the same length.

    Reference:
        Hazan et al., Beyond Convexity: Stochastic Quasi-Convex Optimization, 2015. https://arxiv.org/abs/1507.02030
    """
    if over not in ("all", "each"):
        raise UsageError(f"normalize_gradients: expected over to be 'all' or 'each', got {over!r}. Choose one of them.")

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        if over == "each":
            norms = gradients.norms()
            gradients.scale_each(torch.where((norms > 0) & norms.isfinite(), 1 / norms, 1.0))
        elif 0 < gradients.global_norm() < math.inf:
            gradients.scale(1 / gradients.global_norm())
        return state

    return GradientTransform(lambda _: {}, update, "normalize_gradients")


def gradient_noise(eta: float = 0.01, seed: int = 0) -> GradientTransform:
    """Add Gaussian noise of variance ``eta / (1 + t)^0.55`` to every entry.

    The noise follows from seed and step alone, so that a resumed training draws the same, processes of one training
    draw the same for the same weight, and no other random state is touched.

    Args:
        eta: Variance at the first step, in squared units of the gradients; the paper tries 0.01, 0.3 and 1.
        seed: Of the noise.

    Reference:
        Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks, 2015, eq. 1.
        https://arxiv.org/abs/1511.06807
    """
    positive("gradient_noise", "eta", eta)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        step = state["steps"]
        deviation = math.sqrt(eta / (1 + step) ** _NOISE_DECAY)
        generators: dict[torch.device, torch.Generator] = {}
        for tensor, parameter in zip(gradients.dense("gradient_noise"), gradients.parameters, strict=True):
            device = tensor.device
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(int(seed) * _SEED_STRIDE + step)
            noise = torch.randn(parameter.shape, generator=generators[device], dtype=parameter.dtype, device=device)
            part = shard_like(noise, parameter)
            tensor.add_(torch.view_as_real(part) if part.is_complex() else part, alpha=deviation)
        return {"steps": step + 1}

    return GradientTransform(lambda _: {"steps": 0}, update, "gradient_noise")
