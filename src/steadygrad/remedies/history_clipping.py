"""Clips whose threshold follows the gradients of the steps before: AutoClip, ZClip, AdaGC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from steadygrad.remedies.clipping import factor_within, factors_within
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.tally import new_tally, recent_values, tallied
from steadygrad.remedies.thresholds import Threshold, by_step, positive, share, whole

__all__ = ["clip_by_quantile", "clip_by_running_norm", "clip_by_zscore"]

_ZSCORE_EPS = 1e-6  # added to the deviation, as ZClip has it


def clip_by_quantile(percentile: Threshold = 10.0, history: int = 1000) -> GradientTransform:
    """Clip the global norm at a percentile of its own history (AutoClip).

    By design it acts on ``100 - percentile`` percent of the steps: small percentiles give steps of nearly one length.
    Departures from the paper: the history is bounded, and norms that are zero or not finite do not enter it, so that a
    single NaN does not end all clipping and a start with zero gradients does not end the training.

    Args:
        percentile: Within (0, 100), of the norms of the last steps, this one included.
        history: Steps to remember.

    Reference:
        Seetharaman et al., AutoClip, 2020. https://arxiv.org/abs/2007.14469
    """
    quantile = by_step("clip_by_quantile", "percentile", percentile, partial(share, whole=100.0))
    whole("clip_by_quantile", "history", history)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        if norm == 0 or not math.isfinite(norm):
            return tallied(state, math.nan, 1.0)
        known = recent_values(tallied(state, norm, 1.0))
        factor = factor_within(norm, known.quantile(quantile(state["steps"])).item(), gradients)
        gradients.scale(factor)
        return tallied(state, norm, factor)

    return GradientTransform(lambda _: new_tally(history), update, "clip_by_quantile")


def clip_by_zscore(deviations: Threshold = 2.5, decay: float = 0.97, warmup: int = 25) -> GradientTransform:
    """Clip the global norm where it lies too many standard deviations above its running mean (ZClip).

    With ``z = (|g| - mean) / std > deviations`` the norm becomes ``mean + deviations * std * deviations / z``: the
    higher the spike, the nearer to the mean. Mean and variance are exponential averages of the clipped norms, started
    from the first ``warmup`` steps, on which nothing is clipped. The authors' code also bounds the norm by 1, which is
    ``chain(clip_by_zscore(), clip_by_global_norm(1.0))``. Norms that are zero or not finite do not enter the averages.

    Args:
        deviations: Standard deviations above the mean that are still normal.
        decay: Of the averages, within (0, 1).
        warmup: Steps.

    Reference:
        Kumar et al., ZClip, 2025, algorithm 1. https://arxiv.org/abs/2504.02507
    """
    threshold = by_step("clip_by_zscore", "deviations", deviations)
    share("clip_by_zscore", "decay", decay)
    whole("clip_by_zscore", "warmup", warmup)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        if norm == 0 or not math.isfinite(norm):
            return tallied(state, math.nan, 1.0)
        mean, variance = state["mean"], state["variance"]
        if mean == 0:  # still warming up
            state = tallied(state, norm, 1.0)
            first = recent_values(state)
            if len(first) == warmup:
                state |= {"mean": first.mean().item(), "variance": first.var(correction=0).item()}
            return state
        most = threshold(state["steps"])
        z = (norm - mean) / (math.sqrt(variance) + _ZSCORE_EPS)
        bound = mean + most * math.sqrt(variance) * most / z if z > most else norm
        factor = bound / norm
        gradients.scale(factor)
        mean = decay * mean + (1 - decay) * bound
        variance = decay * variance + (1 - decay) * (bound - mean) ** 2
        return tallied(state, norm, factor) | {"mean": mean, "variance": variance}

    return GradientTransform(
        lambda _: new_tally(max(warmup, 512)) | {"mean": 0.0, "variance": 0.0}, update, "clip_by_zscore"
    )


def clip_by_running_norm(
    ratio: Threshold = 1.05, decay: float = 0.98, warmup: int = 100, warmup_norm: float = 1.0
) -> GradientTransform:
    """Clip each parameter's gradient at a multiple of the running mean of its own norm (AdaGC).

    ``g_i * min(1, ratio * gamma_i / |g_i|)``, with ``gamma_i`` the exponential average of the clipped norms. During the
    warm-up the *global* norm is clipped at ``warmup_norm`` and ``gamma_i`` is the smallest norm seen. Departure from
    the paper: norms of zero do not enter, or a parameter behind a zero-initialized layer would never learn.

    Args:
        ratio: Largest ratio of a norm to its running mean.
        decay: Of the average, within (0, 1).
        warmup: Steps.
        warmup_norm: Largest global norm during the warm-up.

    Reference:
        Wang et al., AdaGC, 2025, algorithm 1. https://arxiv.org/abs/2502.11034
    """
    most = by_step("clip_by_running_norm", "ratio", ratio)
    positive("clip_by_running_norm", "warmup_norm", warmup_norm)
    share("clip_by_running_norm", "decay", decay)
    whole("clip_by_running_norm", "warmup", warmup)

    def init(parameters: Sequence[Tensor]) -> State:
        return new_tally() | {"gamma": torch.zeros(len(parameters), dtype=torch.float64)}

    def update(gradients: Gradients, state: State, parameters: Sequence[Tensor]) -> State:
        if not gradients.finite:
            return tallied(state, math.nan, 1.0)
        norms, rounding = gradients.norms(), gradients.rounding
        known = torch.zeros(len(parameters), dtype=torch.float64)  # parameters may have been added
        known[: len(state["gamma"])] = state["gamma"]
        gamma = known[gradients.positions]
        warm = state["steps"] + 1 >= warmup
        if warm:
            factors = torch.where(gamma > 0, factors_within(norms, most(state["steps"]) * gamma, rounding), 1.0)
        else:
            factors = torch.full_like(norms, factor_within(gradients.global_norm(), warmup_norm, gradients))
        gradients.scale_each(factors)
        clipped = norms * factors
        followed = decay * gamma + (1 - decay) * clipped if warm else torch.minimum(gamma, clipped)
        known[gradients.positions] = torch.where(norms > 0, torch.where(gamma > 0, followed, clipped), gamma)
        highest = max((norms / gamma)[gamma > 0].tolist(), default=math.nan) if warm else math.nan
        return tallied(state, highest, min(factors.tolist(), default=1.0)) | {"gamma": known}

    return GradientTransform(init, update, "clip_by_running_norm")
