"""Clip each unit's gradient by the norm of its weights (AGC)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.norms import HALF, entries, unit_norms
from steadygrad.remedies.sharding import check_whole_units, local_part
from steadygrad.remedies.tally import new_tally, tallied
from steadygrad.remedies.thresholds import Threshold, by_step, positive

__all__ = ["adaptive_clip"]

_LEAST_GRADIENT_NORM = 1e-6  # that a limit is divided by, as timm has it
_BLOCK = 1 << 21  # entries; so many of gradient and weight stay in a processor's last cache


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
        leasts = list(_clip_(gradients, tensors, included, bound, eps))
        least = math.nan if any(map(math.isnan, leasts)) else min(leasts, default=math.inf)
        if not least >= 1:
            gradients.edit()  # what it knows of them is no longer true
        ratio_here = bound / least if least > 0 else math.inf
        largest = max(gradients.max([ratio_here] * len(gradients)).tolist(), default=0.0)
        return tallied(state, largest, min(1.0, bound / largest) if largest else 1.0)

    return GradientTransform(init, update, "adaptive_clip")


def _clip_(gradients: Gradients, tensors: list[Tensor], where: list[int], bound: float, eps: float) -> Iterator[float]:
    """Clip some gradients group by group; yield the smallest factor of each group, NaN if one is not finite."""
    kinds: dict[tuple[torch.device, torch.dtype, bool], list[int]] = {}
    for i in where:
        tensor, vector = tensors[i], gradients.parameters[i].dim() < 2
        if vector or tensor.numel():  # norms of vectors are summed over processes, of which one may hold no entry
            kinds.setdefault((tensor.device, tensor.dtype, vector), []).append(i)
    for (device, _, vector), positions in kinds.items():
        parts = [tensors[i] for i in positions]
        weights = [_weight(gradients, i) for i in positions]
        if vector:
            limits, norms = (_vector_norms(gradients, positions, each) for each in (weights, parts))
            yield _clip_units_(parts, limits, norms, bound, eps)
        else:
            for group in _groups(parts, weights, _BLOCK if device.type == "cpu" else math.inf):
                limits, norms = (torch.cat([unit_norms(pair[k]) for pair in group]) for k in (1, 0))
                yield _clip_units_([part for part, _ in group], limits, norms, bound, eps)


def _weight(gradients: Gradients, i: int) -> Tensor:
    """Return what this process holds of the weights that a gradient belongs to."""
    weight = entries(local_part(gradients.parameters[i].detach()))
    rows = gradients.stored_rows(i)
    return weight if rows is None else weight[rows]


def _vector_norms(gradients: Gradients, positions: list[int], vectors: list[Tensor]) -> Tensor:
    """Return the norm of each vector, over all processes. Shape ``(vectors,)``."""
    dtype = torch.float32 if vectors[0].dtype in HALF else None
    norms = torch.stack(torch._foreach_norm(vectors, 2, dtype))
    if gradients.sharded:
        squares = [0.0] * len(gradients)
        for i, norm in zip(positions, norms.tolist(), strict=True):
            squares[i] = norm * norm
        norms = gradients.sum(squares).sqrt()[positions].to(norms)
    return norms


def _groups(parts: list[Tensor], weights: list[Tensor], block: float) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield gradients with their weights, cut between units, in groups of up to ``block`` entries each."""
    group: list[tuple[Tensor, Tensor]] = []
    size = 0
    for part, weight in zip(parts, weights, strict=True):
        pairs = [(part, weight)]
        if part.numel() > block:
            units = max(1, int(block) // part[0].numel())
            pairs = list(zip(part.split(units), weight.split(units), strict=True))
        for pair in pairs:
            if group and size + pair[0].numel() > block:
                yield group
                group, size = [], 0
            group.append(pair)
            size += pair[0].numel()
    if group:
        yield group


def _clip_units_(parts: list[Tensor], limits: Tensor, norms: Tensor, bound: float, eps: float) -> float:
    """Clip the units of some gradients; return the smallest factor, NaN if a unit is not finite.

    Args:
        parts: Gradients, each of several units or a vector that is one; ``units`` in all.
        limits: Norms of the units' weights, of shape ``(units,)``; made their limits.
        norms: Norms of the units, of shape ``(units,)``.
        bound: Largest ratio of gradient norm to weight norm.
        eps: Least norm that a unit's weights count with.
    """
    limits.clamp_(min=eps).mul_(bound)
    factors = limits / norms.clamp_(min=_LEAST_GRADIENT_NORM)
    least = factors.min().item()
    if not least >= 1:
        counts = [len(part) if part.dim() > 1 else 1 for part in parts]
        usual = factors.clamp(max=1.0)
        if not least > 0:  # squares overflow, or an entry is not finite
            usual.masked_fill_(~(factors > 0), 1.0)
        shapes = [(-1, *[1] * (part.dim() - 1)) for part in parts]
        torch._foreach_mul_(parts, [f.view(shape) for f, shape in zip(usual.split(counts), shapes, strict=True)])
        if not least > 0:
            for part, factor, limit in zip(parts, factors.split(counts), limits.split(counts), strict=True):
                _multiply_overflowing_(part, limit, factor)
    return least


def _multiply_overflowing_(part: Tensor, limits: Tensor, factors: Tensor) -> None:
    """Multiply units whose factor is 0 because squares overflow by the one that scaled entries give."""
    units = part if part.dim() > 1 else part.unsqueeze(0)
    failed = ~(factors > 0)
    if failed.any():
        wide = units[failed].flatten(1).double()
        peaks = wide.abs().amax(1)
        norms = peaks * torch.linalg.vector_norm(wide / peaks.unsqueeze(1), dim=1)
        # Twice by the root, because the factor may vanish in float32. A unit that is not finite is left alone.
        roots = torch.where(norms.isfinite(), (limits[failed] / norms).clamp(max=1.0), 1.0).sqrt()
        roots = roots.view(-1, *[1] * (units.dim() - 1))
        units[failed] = units[failed].mul_(roots).mul_(roots)
