"""Clips whose threshold does not depend on what came before: by value, by norm, by projection onto a ball."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from steadygrad.errors import UsageError
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.tally import new_tally, tallied
from steadygrad.remedies.thresholds import Threshold, by_step

__all__ = [
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_parameter_norm",
    "clip_by_value",
    "factor_within",
    "factors_within",
    "project_gradients",
]


def factor_within(norm: float, bound: float, gradients: Gradients) -> float:
    """Return the factor that brings ``norm`` within ``bound``; 1 if it is within, or not finite.

    A clipped norm misses the bound by rounding: clipping it again must change nothing.
    """
    outside = bound < norm < math.inf and bound * (1 + gradients.rounding) < norm
    return bound / norm if outside else 1.0


def factors_within(norms: Tensor, bounds: Tensor | float, rounding: float) -> Tensor:
    """Return :func:`factor_within` of each of some norms; all tensors of shape ``(gradients,)``, float64."""
    outside = (norms > bounds * (1 + rounding)) & norms.isfinite()
    return torch.where(outside, bounds / norms, 1.0)


def clip_by_global_norm(max_norm: Threshold = 1.0) -> GradientTransform:
    """Scale all gradients by one factor so that their global norm is at most ``max_norm``: ``g * min(1, c / |g|)``.

    The direction stays; gradients within the bound stay as they are, bit for bit. Unlike
    ``torch.nn.utils.clip_grad_norm_`` it does not turn finite gradients of 1e20 into zeros, and no 1e-6 is added to the
    norm. Gradients that hold NaN or inf are left alone: no factor repairs them.

    Args:
        max_norm: Largest global L2 norm, in the units of the gradients.

    Reference:
        Pascanu et al., On the Difficulty of Training Recurrent Neural Networks, 2013, algorithm 1.
        https://arxiv.org/abs/1211.5063
    """
    bound = by_step("clip_by_global_norm", "max_norm", max_norm)
    return GradientTransform(lambda _: new_tally(), _within_global_norm(bound), "clip_by_global_norm")


def clip_by_value(max_value: Threshold = 1.0) -> GradientTransform:
    """Clamp every entry to ``[-max_value, max_value]``, as ``torch.nn.utils.clip_grad_value_`` does.

    The direction changes. Entries of inf become the bound, NaN stays.

    Args:
        max_value: Largest magnitude of an entry, in the units of the gradients.
    """
    bound = by_step("clip_by_value", "max_value", max_value)
    return GradientTransform(lambda _: new_tally(), _within_value(bound), "clip_by_value")


def clip_by_parameter_norm(max_norm: Threshold = 1.0) -> GradientTransform:
    """Scale each parameter's gradient on its own so that its norm is at most ``max_norm`` (Keras ``clipnorm``).

    Args:
        max_norm: Largest L2 norm of one gradient, in the units of the gradients.
    """
    bound = by_step("clip_by_parameter_norm", "max_norm", max_norm)
    return _each_within(bound, lambda gradients: gradients.norms(), "clip_by_parameter_norm")


def clip_by_block_rms(max_rms: Threshold = 1.0) -> GradientTransform:
    """Scale each parameter's gradient so that its RMS is at most ``max_rms``: ``g / max(1, rms(g) / c)``.

    Unlike a norm, an RMS means the same for large and for small parameters.

    Args:
        max_rms: Largest root mean square of the entries of one gradient, in the units of the gradients.

    Reference:
        Shazeer and Stern, Adafactor, 2018, sec. 6, for updates; optax's ``clip_by_block_rms``.
        https://arxiv.org/abs/1804.04235
    """
    bound = by_step("clip_by_block_rms", "max_rms", max_rms)
    return _each_within(bound, lambda gradients: gradients.norms() / gradients.sizes.sqrt(), "clip_by_block_rms")


def project_gradients(radius: Threshold = 1.0, norm: Literal["l1", "l2", "linf"] = "l2") -> GradientTransform:
    """Move all gradients together to the nearest point of a ball around 0.

    Onto the L2 ball this *is* :func:`clip_by_global_norm`, onto the L-infinity ball :func:`clip_by_value`. Onto the L1
    ball every entry shrinks by the same amount and small ones become 0.

    Args:
        radius: Of the ball, in the units of the gradients.
        norm: Of the ball.

    Reference:
        Duchi et al., Efficient Projections onto the l1-Ball, 2008; the threshold by Michelot's fixed point, 1986.
    """
    bound = by_step("project_gradients", "radius", radius)
    updates = {"l1": _within_l1, "l2": _within_global_norm, "linf": _within_value}
    if norm not in updates:
        raise UsageError(
            f"project_gradients: expected norm to be 'l1', 'l2' or 'linf', got {norm!r}. Choose one of them."
        )
    return GradientTransform(lambda _: new_tally(), updates[norm](bound), "project_gradients")


Update = Callable[[Gradients, State, Sequence[Tensor]], State]


def _within_global_norm(bound: Callable[[int], float]) -> Update:
    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        factor = factor_within(norm, bound(state["steps"]), gradients)
        gradients.scale(factor)
        return tallied(state, norm, factor)

    return update


def _within_value(bound: Callable[[int], float]) -> Update:
    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        most = bound(state["steps"])
        peaks = gradients.peaks()
        peak = max(peaks.tolist(), default=0.0)
        if peak <= most:
            return tallied(state, peak, 1.0)
        tensors = gradients.edit()
        for i in (peaks > most).nonzero().flatten().tolist():
            tensors[i].clamp_(-most, most)
        return tallied(state, peak, most / peak)

    return update


def _within_l1(bound: Callable[[int], float]) -> Update:
    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        radius = bound(state["steps"])
        length = _above(gradients, 0.0)[0] if gradients.finite else math.inf
        if not radius * (1 + gradients.rounding) < length < math.inf:
            return tallied(state, length, 1.0)
        shrink = _shrinkage(gradients, radius)
        for tensor in gradients.edit():
            tensor.copy_(torch.nn.functional.softshrink(tensor, shrink))
        return tallied(state, length, radius / length)

    return update


def _shrinkage(gradients: Gradients, radius: float) -> float:
    """Return by how much all magnitudes have to shrink for their sum to be ``radius``."""
    shrink, count = 0.0, math.inf
    while True:  # the entries above the threshold only grow fewer, so this ends
        total, above = _above(gradients, shrink)
        if above == count or above == 0:
            return shrink
        shrink, count = (total - radius) / above, above


def _above(gradients: Gradients, threshold: float) -> tuple[float, float]:
    """Return sum and number of the magnitudes above a threshold, over all processes."""
    totals, counts = [], []
    for tensor in gradients.read():
        magnitudes = tensor.abs()
        above = magnitudes > threshold
        totals.append((magnitudes * above).sum(dtype=torch.float64).item())
        counts.append(float(above.sum().item()))
    return gradients.sum(totals).sum().item(), gradients.sum(counts).sum().item()


def _each_within(bound: Callable[[int], float], measure: Callable[[Gradients], Tensor], name: str) -> GradientTransform:
    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        sizes = measure(gradients)
        factors = factors_within(sizes, bound(state["steps"]), gradients.rounding)
        gradients.scale_each(factors)
        largest = max(sizes.nan_to_num(math.inf).tolist(), default=0.0)
        return tallied(state, largest, min(factors.tolist(), default=1.0))

    return GradientTransform(lambda _: new_tally(), update, name)
