"""Clip each unit's gradient by the norm of its weights (AGC)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.norms import entries, unit_norms
from steadygrad.remedies.sharding import check_whole_units, local_part
from steadygrad.remedies.tally import new_tally, tallied
from steadygrad.remedies.thresholds import Threshold, by_step, positive

__all__ = ["adaptive_clip"]

_LEAST_GRADIENT_NORM = 1e-6  # that a limit is divided by, as timm has it


def adaptive_clip(
    clip_factor: Threshold = 0.01, eps: float = 1e-3, exclude: Iterable[nn.Parameter] = ()
) -> GradientTransform:
    """Bound each unit's gradient norm by ``clip_factor`` times the norm of its weights (AGC).

    ``|G_i| <= clip_factor * max(|W_i|, eps)``; a unit is one slice along dimension 0, a vector is one unit. Weights of
    zero learn thanks to ``eps``. Equal to ``timm.utils.agc`` bit for bit in float32 and float64, except where that
    fails: finite gradients whose squares overflow are clipped, not zeroed, and a unit that holds NaN or inf is left
    alone.

    Args:
        clip_factor: Largest ratio of gradient norm to weight norm.
        eps: Least norm that a unit's weights count with.
        exclude: Parameters to leave alone. The paper leaves out the last linear layer: ``model.head.parameters()``.

    Reference:
        Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, 2021, sec. 4.1.
        https://arxiv.org/abs/2102.06171
    """
    ratio = by_step("adaptive_clip", "clip_factor", clip_factor)
    positive("adaptive_clip", "eps", eps)
    left_out = list(exclude)

    def init(parameters: Sequence[Tensor]) -> State:
        check_whole_units("adaptive_clip", parameters)
        excluded = [i for i, parameter in enumerate(parameters) if any(parameter is other for other in left_out)]
        return new_tally() | {"excluded": excluded}

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        bound = ratio(state["steps"])
        excluded = set(state["excluded"])
        included = [i for i, position in enumerate(gradients.positions) if position not in excluded]
        tensors = gradients.read()
        limits = _norms(gradients, {i: _weight(gradients, i) for i in included})
        norms = _norms(gradients, {i: tensors[i] for i in included})
        torch._foreach_clamp_min_(limits, eps)
        torch._foreach_mul_(limits, bound)
        torch._foreach_clamp_min_(norms, _LEAST_GRADIENT_NORM)
        factors = torch._foreach_div(limits, norms)
        ratios = [0.0] * len(gradients)
        for i, limit, factor in zip(included, limits, factors, strict=True):
            least = factor.min().item() if len(factor) else math.inf
            ratios[i] = bound / least if least > 0 else math.inf
            if 0 < least < 1:
                _multiply_units_(gradients.edit()[i], factor)
            elif not least >= 1:  # squares overflow, or an entry is not finite
                _multiply_units_(gradients.edit()[i], _exact_factors(tensors[i], limit, factor).sqrt(), times=2)
        largest = max(gradients.max(ratios).tolist(), default=0.0)
        return tallied(state, largest, min(1.0, bound / largest) if largest else 1.0)

    return GradientTransform(init, update, "adaptive_clip")


def _weight(gradients: Gradients, i: int) -> Tensor:
    """Return what this process holds of the weights that a gradient belongs to."""
    weight = entries(local_part(gradients.parameters[i].detach()))
    rows = gradients.stored_rows(i)
    return weight if rows is None else weight[rows]


def _norms(gradients: Gradients, tensors: dict[int, Tensor]) -> list[Tensor]:
    """Return the norm of each unit that this process holds, by gradient; a sharded vector's over all processes."""
    vectors = {i for i in tensors if gradients.parameters[i].dim() < 2}
    norms = {i: unit_norms(tensor.reshape(-1) if i in vectors else tensor) for i, tensor in tensors.items()}
    if gradients.sharded and vectors:
        squares = [norms[i].double().square().item() if i in vectors else 0.0 for i in range(len(gradients))]
        totals = gradients.sum(squares).sqrt()
        norms |= {i: totals[i : i + 1].to(norms[i]) for i in vectors}
    return list(norms.values())


def _exact_factors(tensor: Tensor, limits: Tensor, factors: Tensor) -> Tensor:
    """Return factors in float64, with those that are 0 or NaN taken from norms of scaled entries; 1 if not finite."""
    failed = ~(factors > 0)
    units = (tensor[failed] if len(factors) > 1 else tensor).reshape(int(failed.sum()), -1).double()
    peaks = units.abs().amax(1, keepdim=True)
    norms = (peaks * torch.linalg.vector_norm(units / peaks, dim=1, keepdim=True)).reshape(-1)
    factors = factors.double()
    factors[failed] = torch.where(norms.isfinite(), limits[failed] / norms, 1.0)
    return factors


def _multiply_units_(tensor: Tensor, factors: Tensor, times: int = 1) -> None:
    """Multiply each unit by its factor, at most 1; twice by the root where the factor may vanish in float32."""
    factors = factors.clamp(max=1.0)
    for _ in range(times):
        tensor.mul_(factors.view(-1, *[1] * (tensor.dim() - 1)) if len(factors) > 1 else factors)
