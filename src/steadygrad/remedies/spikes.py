"""What to do with single bad steps: skip them, zero what is not finite, clip single entries (SPAM)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steadygrad.errors import SetupError
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.tally import new_tally, recent_values, tallied
from steadygrad.remedies.thresholds import Threshold, by_step, share, whole

__all__ = ["clip_spikes", "skip_nonfinite", "skip_spikes", "zero_nonfinite"]

_LEAST_DEVIATION = 0.01  # of the mean: equal norms have none, and then every step would be a spike


def skip_nonfinite(give_up_after: int = 10) -> GradientTransform:
    """Skip steps whose gradients hold NaN or inf, and say so loudly if they go on.

    On a skipped step the optimizer sees no gradient: weights, moments and step counts stay. Steps that a ``GradScaler``
    skips are its own business and are not counted.

    Args:
        give_up_after: So many steps skipped in a row raise :class:`~steadygrad.errors.SetupError`.

    Reference:
        optax's ``apply_if_finite``, which in the end takes the non-finite step instead.
    """
    whole("skip_nonfinite", "give_up_after", give_up_after)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        if math.isfinite(norm):
            return tallied(state, norm, 1.0) | {"in_a_row": 0}
        gradients.skip = True
        in_a_row = state["in_a_row"] + 1
        if in_a_row >= give_up_after:
            raise SetupError(
                f"skip_nonfinite: expected finite gradients, got NaN or inf on {in_a_row} steps in a row, after "
                f"{state['steps'] + 1 - in_a_row} others. Lower the learning rate, or look for the layer that makes "
                "them: steadygrad.diagnose(setup)."
            )
        return tallied(state, norm, 0.0) | {"in_a_row": in_a_row}

    return GradientTransform(lambda _: new_tally() | {"in_a_row": 0}, update, "skip_nonfinite", skips=True)


def zero_nonfinite() -> GradientTransform:
    """Set entries of NaN and inf to 0 and keep the rest of the step.

    It hides the fault and biases the step: prefer :func:`skip_nonfinite`. optax's ``zero_nans`` keeps inf.
    """

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        if math.isfinite(norm):
            return tallied(state, norm, 1.0)
        for tensor in gradients.edit():
            tensor.nan_to_num_(0.0, 0.0, 0.0)
        return tallied(state, norm, 0.0)

    return GradientTransform(lambda _: new_tally(), update, "zero_nonfinite")


def skip_spikes(deviations: Threshold = 6.0, window: int = 128, give_up_after: int = 10) -> GradientTransform:
    """Skip steps whose global norm lies too many standard deviations above the mean of the last steps.

    Skipped norms and zeros do not count as last steps. A spike is short: after ``give_up_after`` skipped steps in a row
    the norm has a new level, the step is taken and the statistics start afresh. Steps with NaN or inf are left to
    :func:`skip_nonfinite`.

    Args:
        deviations: Standard deviations above the mean that are still normal; one is at least 1 % of the mean.
        window: Steps that mean and deviation are taken over; nothing is skipped before half of them.
        give_up_after: Steps.

    Reference:
        The skip-step optimizer of OLMo-core: 6 deviations, 128 steps. https://github.com/allenai/OLMo-core
    """
    threshold = by_step("skip_spikes", "deviations", deviations)
    whole("skip_spikes", "window", window)
    whole("skip_spikes", "give_up_after", give_up_after)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        norm = gradients.global_norm()
        if norm == 0 or not math.isfinite(norm):
            return tallied(state, math.nan, 1.0)
        known = recent_values(state)
        if len(known) < max(2, window // 2):
            return tallied(state, norm, 1.0)
        mean = known.mean().item()
        deviation = max(known.std().item(), _LEAST_DEVIATION * mean)
        if norm <= mean + threshold(state["steps"]) * deviation:
            return tallied(state, norm, 1.0) | {"in_a_row": 0}
        if state["in_a_row"] >= give_up_after:
            return tallied(state | {"recent": []}, norm, 1.0) | {"in_a_row": 0}
        gradients.skip = True
        return tallied(state, math.nan, 0.0) | {"in_a_row": state["in_a_row"] + 1}

    return GradientTransform(lambda _: new_tally(window) | {"in_a_row": 0}, update, "skip_spikes", skips=True)


def clip_spikes(ratio: Threshold = 5000.0, decay: float = 0.999, warmup: int = 20) -> GradientTransform:
    """Clip single entries whose square exceeds ``ratio`` times its own running mean: the clip of SPAM.

    ``sign(g) * sqrt(ratio * v)`` where ``g^2 > ratio * v``, with ``v`` the exponential average of the clipped squares,
    as Adam's second moments, not debiased. Momentum resets are left out. Departure from the paper: entries that have
    had no gradient yet (``v`` = 0) are left alone, or they would never learn.

    Args:
        ratio: Largest ratio of a square to its mean.
        decay: Of the average, within (0, 1).
        warmup: Steps that are only watched.

    Reference:
        Huang et al., SPAM, 2025, sec. 4.1. https://arxiv.org/abs/2501.06842
    """
    bound = by_step("clip_spikes", "ratio", ratio)
    share("clip_spikes", "decay", decay)
    whole("clip_spikes", "warmup", warmup)

    def update(gradients: Gradients, state: State, _: Sequence[Tensor]) -> State:
        if not gradients.finite:
            return tallied(state, math.nan, 1.0)
        most = bound(state["steps"])
        squares = dict(state["squares"])
        excesses = [0.0] * len(gradients)
        for i, tensor in enumerate(gradients.dense("clip_spikes")):
            wide = tensor if tensor.dtype == torch.float64 else tensor.float()
            mean = squares.get(gradients.positions[i], torch.zeros_like(wide)).to(wide.device)
            if state["steps"] >= warmup and tensor.numel():
                limits = (mean * most).sqrt_().masked_fill_(mean == 0, math.inf)
                excesses[i] = (wide.abs() / limits).max().item()
                if excesses[i] > 1:
                    tensor.copy_(wide.clamp(-limits, limits))
                    wide = tensor.to(wide.dtype)
            mean = (mean * decay).addcmul_(wide, wide, value=1 - decay)
            squares[gradients.positions[i]] = mean.clamp_(max=torch.finfo(mean.dtype).max)  # inf would never end
        excess = max(gradients.max(excesses).tolist(), default=0.0)
        value = most * excess**2 if state["steps"] >= warmup else math.nan
        return tallied(state, value, 1 / excess if excess > 1 else 1.0) | {"squares": squares}

    return GradientTransform(lambda _: new_tally() | {"squares": {}}, update, "clip_spikes")
