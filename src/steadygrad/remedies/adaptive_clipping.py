"""Clip each unit's gradient by the norm of its weights (AGC)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.norms import HALF, entries, unit_norms
from steadygrad.remedies.sharding import check_whole_units, local_part
from steadygrad.remedies.tally import new_tally, tallied
from steadygrad.remedies.thresholds import Threshold, by_step, positive

__all__ = ["adaptive_clip"]

_LEAST_GRADIENT_NORM = 1e-6  # that a limit is divided by, as timm has it
_BLOCK = 1 << 19  # entries; so many of gradient and weight stay in a processor's cache


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
        tensors = gradients.read()
        included = [i for i, position in enumerate(gradients.positions) if position not in excluded]
        vectors = [i for i in included if gradients.parameters[i].dim() < 2]
        smallest = _clip_vectors_(gradients, tensors, vectors, bound, eps)
        for i in set(included).difference(vectors):
            if tensors[i].numel():
                smallest[i] = _clip_matrix_(tensors[i], _weight(gradients, i), bound, eps)
        ratios = [0.0] * len(gradients)
        for i, factor in smallest.items():
            ratios[i] = bound / factor if factor > 0 else math.inf
        if any(not factor >= 1 for factor in smallest.values()):
            gradients.edit()  # what it knows of them is no longer true
        largest = max(gradients.max(ratios).tolist(), default=0.0)
        return tallied(state, largest, min(1.0, bound / largest) if largest else 1.0)

    return GradientTransform(init, update, "adaptive_clip")


def _weight(gradients: Gradients, i: int) -> Tensor:
    """Return what this process holds of the weights that a gradient belongs to."""
    weight = entries(local_part(gradients.parameters[i].detach()))
    rows = gradients.stored_rows(i)
    return weight if rows is None else weight[rows]


def _clip_vectors_(
    gradients: Gradients, tensors: list[Tensor], where: list[int], bound: float, eps: float
) -> dict[int, float]:
    """Clip tensors that are one unit each, all at once; return their factors, NaN if they are not finite."""
    kinds: dict[object, list[int]] = {}
    for i in where:
        kinds.setdefault((tensors[i].device, tensors[i].dtype), []).append(i)
    found: dict[int, float] = {}
    for positions in kinds.values():
        limits = _vector_norms(gradients, {i: _weight(gradients, i) for i in positions})
        norms = _vector_norms(gradients, {i: tensors[i] for i in positions})
        factors = _factors(limits, norms, bound, eps)
        found |= zip(positions, factors.tolist(), strict=True)
        for k, i in enumerate(positions):
            if not found[i] >= 1:
                _multiply_units_(tensors[i], limits[k : k + 1], factors[k : k + 1])
    return found


def _vector_norms(gradients: Gradients, tensors: dict[int, Tensor]) -> Tensor:
    """Return the norm of each vector, over all processes. Shape ``(vectors,)``."""
    dtype = torch.float32 if next(iter(tensors.values())).dtype in HALF else None
    norms = torch.stack(torch._foreach_norm(list(tensors.values()), 2, dtype))
    if gradients.sharded:
        squares = [0.0] * len(gradients)
        for i, norm in zip(tensors, norms.tolist(), strict=True):
            squares[i] = norm * norm
        norms = gradients.sum(squares).sqrt()[list(tensors)].to(norms)
    return norms


def _clip_matrix_(gradient: Tensor, weight: Tensor, bound: float, eps: float) -> float:
    """Clip each unit, block by block while that lies in the cache; return the smallest factor, NaN if not finite."""
    units = max(1, _BLOCK // gradient[0].numel())
    leasts = []
    for part, weights in zip(gradient.split(units), weight.split(units), strict=True):
        limits = unit_norms(weights)
        factors = _factors(limits, unit_norms(part), bound, eps)
        least = factors.min().item()
        leasts.append(least)
        if not least >= 1:
            _multiply_units_(part, limits, factors)
    return math.nan if any(map(math.isnan, leasts)) else min(leasts)


def _factors(limits: Tensor, norms: Tensor, bound: float, eps: float) -> Tensor:
    """Make limits of the weights' norms in place, and return what brings each gradient norm to its limit."""
    limits.clamp_(min=eps).mul_(bound)
    return limits / norms.clamp_(min=_LEAST_GRADIENT_NORM)


def _multiply_units_(tensor: Tensor, limits: Tensor, factors: Tensor) -> None:
    """Multiply each unit by its factor if that is below 1.

    Factors that are 0 or NaN, because squares overflow or an entry is not finite, are found again from scaled entries.
    """
    units = tensor if tensor.dim() > 1 else tensor.unsqueeze(0)
    shape = (-1, *[1] * (units.dim() - 1))
    failed = ~(factors > 0)
    units.mul_(factors.clamp(max=1.0).masked_fill(failed, 1.0).view(shape))
    if failed.any():
        wide = units[failed].flatten(1).double()
        peaks = wide.abs().amax(1)
        norms = peaks * torch.linalg.vector_norm(wide / peaks.unsqueeze(1), dim=1)
        # Twice by the root, because the factor may vanish in float32.
        roots = torch.where(norms.isfinite(), (limits[failed] / norms).clamp(max=1.0), 1.0).sqrt().view(shape)
        units[failed] = units[failed].mul_(roots).mul_(roots)
