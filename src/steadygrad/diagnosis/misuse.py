"""SG509 to SG518: precision and misuse over a training: clipping, loss scales, gradients and weights gone wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from steadygrad.diagnosis.rule import Found
from steadygrad.records import History, Severity, Symptom

__all__ = ["CHECKS", "clipping_report"]

FEWEST, WINDOW = 10, 50
# wandb/senpai#983 clips 90 % of its batches: then the threshold sets the step's size, not the gradient.
ALWAYS_CLIPPED = 0.9
# A loss scale at or below 1 protects nothing from underflow.
LEAST_SCALE = 1.0
SHRUNK = 1e-3
PERCENTILES = 10, 50, 90, 99
TOO_SMALL = 0.01
UNDERFLOW = 0.5


def clipping_report(history: History) -> dict[str, float]:
    """Return percentiles of the gradient norm before clipping, the share of steps clipped, and a threshold to try.

    The threshold is the 90th percentile: one step in ten is clipped. Pascanu et al. 2013, sec. 3.2, set it from the
    average norm over many updates. Empty without a finite gradient norm.
    """
    norms = _column(history, "grad_norm")
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not norms.size:
        return {}
    report = {f"p{p}": float(value) for p, value in zip(PERCENTILES, np.percentile(norms, PERCENTILES), strict=True)}
    return report | {"clipped": _share_clipped(history), "suggested": report["p90"]}


def _share_clipped(history: History) -> float:
    """Return the share of steps whose gradient was clipped; NaN where none was seen before and after."""
    before, used = _column(history, "grad_norm"), _column(history, "grad_norm_used")
    both = np.isfinite(before) & (before > 0) & np.isfinite(used)
    return float(np.mean(used[both] < (1 - 1e-3) * before[both])) if both.any() else math.nan


def always_clipped(history: History) -> Iterator[Found]:
    """Find a threshold that nearly every gradient exceeds."""
    if len(history) >= FEWEST and _share_clipped(history) >= ALWAYS_CLIPPED:
        report = clipping_report(history)
        yield Found(
            Severity.NOTE,
            f"{report['clipped']:.0%} of gradients are clipped: norms lie at {report['p10']:.2g} to "
            f"{report['p99']:.2g} "
            f"(median {report['p50']:.2g}); a threshold of {report['suggested']:.2g} would clip one in ten",
            None,
            report,
        )


def scale_collapse(history: History) -> Iterator[Found]:
    """Find a loss scale that has been halved down to nothing."""
    scale = _recent(history, "loss_scale")
    if len(scale) >= 2 and scale[-1] <= LEAST_SCALE < scale.max():
        skipped = int(np.nansum(_column(history, "skipped")))
        yield Found(
            Severity.ERROR,
            f"the loss scale fell from {scale.max():g} to {scale[-1]:g}; {skipped} looks met an overflow",
            None,
            {"loss_scale": float(scale[-1]), "highest": float(scale.max())},
        )


def lost_updates(history: History) -> Iterator[Found]:
    """Find layers that get a gradient and do not move at all."""
    ratios, grads = history.column("update_ratio")[-5:], history.column("grad_norm_used")[-5:]
    rate = _column(history, "lr")
    if len(ratios) < 5 or not rate[-1] > 0:
        return
    with np.errstate(invalid="ignore"):
        lost = np.flatnonzero(((ratios == 0) & (grads > 0)).all(axis=0))
    if len(lost):
        layer = history.layers[int(lost[0])]
        yield Found(
            Severity.ERROR,
            f"{layer} gets a gradient and does not move by one bit in 5 looks: the steps are lost to rounding"
            + (f" (and {len(lost) - 1} layers more)" if len(lost) > 1 else ""),
            layer,
            {"lr": float(rate[-1])},
            1.0 / len(lost),
        )


def clipped_before_unscale(history: History) -> Iterator[Found]:
    """Find gradients that were clipped while they were still multiplied by the loss scale."""
    scale, before, used = (_column(history, name)[-5:] for name in ("loss_scale", "grad_norm", "grad_norm_used"))
    with np.errstate(invalid="ignore"):
        threshold = scale * used
    if len(scale) < 5 or not np.isfinite(threshold).all() or not (scale > 16).all():
        return
    constant = np.ptp(threshold) <= 0.02 * threshold.mean() and np.ptp(before) > 0.02 * before.mean()
    # A threshold that is right also gives one norm, as long as the scale stays: then only its size tells.
    told = np.ptp(scale) > 0 or (used < TOO_SMALL * before).all()
    if constant and told and (used < 0.5 * before).all():
        yield Found(
            Severity.ERROR,
            f"gradients were clipped to {threshold.mean():.3g} while still multiplied by the loss scale: after "
            f"unscaling their norm is {used[-1]:.1e} in place of {before[-1]:.1e}",
            None,
            {"threshold": float(threshold.mean()), "grad_norm": float(before[-1]), "used": float(used[-1])},
        )


def never_zeroed(history: History) -> Iterator[Found]:
    """Find gradients that were still those of the step before when a backward pass began."""
    stale = _column(history, "stale")[-3:]
    if len(stale) == 3 and (stale == 1).all():
        yield Found(
            Severity.ERROR,
            "backward passes add to the gradients of steps already made: nothing zeroes them",
            None,
            {"looks": 3.0},
        )


def shrunk_by_hand(history: History) -> Iterator[Found]:
    """Find weights that shrink between optimizer steps."""
    change = _column(history, "weight_change_outside")
    change = change[np.isfinite(change)][-5:]
    if len(change) >= 3 and (change < -SHRUNK).all():
        yield Found(
            Severity.WARNING,
            f"something other than the optimizer shrinks the weights by {-change.mean():.1%} after a step: that is no "
            "gradient clipping",
            None,
            {"change": float(change.mean())},
        )


def undivided(history: History) -> Iterator[Found]:
    """Find several backward passes a step, none of them from a loss that was divided."""
    passes, plain = (_column(history, name)[-FEWEST:] for name in ("backwards", "undivided"))
    if len(passes) == FEWEST and (passes > 1).all() and np.ptp(passes) == 0 and (plain == passes).all():
        yield Found(
            Severity.NOTE,
            f"{passes[-1]:.0f} backward passes a step add up losses that nothing divides: gradients are "
            f"{passes[-1]:.0f} times those of one batch of that size",
            None,
            {"backwards": float(passes[-1])},
        )


def many_skipped(history: History) -> Iterator[Found]:
    """Find a loss scaler that skips many steps."""
    skipped = _recent(history, "skipped")
    if len(skipped) >= 2 * FEWEST and skipped.mean() > 0.2:
        yield Found(
            Severity.WARNING,
            f"{skipped.mean():.0%} of the last {len(skipped)} looks were steps skipped for an overflow",
            None,
            {"skipped": float(skipped.mean())},
        )


def underflow(history: History) -> Iterator[Found]:
    """Find float16 gradients most of which lie below float16's normal numbers."""
    shares = history.column("output_grad_subnormal")[-FEWEST // 2 :]
    if len(shares) < FEWEST // 2:
        return
    median = np.median(shares, axis=0)  # NaN where one was not seen
    low = np.flatnonzero(median > UNDERFLOW)
    if len(low):
        worst = int(low[np.argmax(median[low])])
        yield Found(
            Severity.WARNING,
            f"{median[worst]:.0%} of the float16 gradient at the output of {history.layers[worst]} lies below 6e-5, "
            "where bits are lost, and more has become 0"
            + (f" (and at {len(low) - 1} layers more)" if len(low) > 1 else ""),
            history.layers[worst],
            {"subnormal": float(median[worst]), "layers": float(len(low))},
        )


def scheduled_early(history: History) -> Iterator[Found]:
    """Find a scheduler that steps before the optimizer does."""
    early = _recent(history, "early_schedules")
    if len(early) and early[-1] > 0:
        yield Found(
            Severity.WARNING,
            f"the learning-rate scheduler made {early[-1]:.0f} steps before the optimizer made its first: the first "
            "values of the schedule are never used",
            None,
            {"early": float(early[-1])},
        )


def _column(history: History, name: str) -> np.ndarray:
    return history.column(name, of="step")


def _recent(history: History, name: str) -> np.ndarray:
    column = _column(history, name)[-WINDOW:]
    return column[np.isfinite(column)]


Check = tuple[str, str, Symptom, str, str, str, str, Callable[[History], Iterator[Found]]]

CHECKS: tuple[Check, ...] = (
    (
        "SG509", "nearly all gradients clipped", Symptom.LEARNING_RATE,
        "When every gradient is clipped, the threshold and not the gradient sets the size of a step.",
        "Norm used below that before clipping in 90 % of the looks.",
        "Pascanu et al. 2013, sec. 3.2 (threshold from the average norm over updates); 90 % is an own choice.",
        "Raise the threshold to about the 90th percentile of the norms, or mean it: then tune it as a learning rate.",
        always_clipped,
    ),
    (
        "SG510", "loss scale has collapsed", Symptom.NONFINITE,
        "The loss scaler met overflow after overflow until its scale protected nothing any more.",
        "Loss scale at 1 or below, after a higher one.",
        "Micikevicius et al. 2018, sec. 3.2 (loss scaling).",
        "Use bfloat16, or find the layer that overflows: a replay of the batch names it.",
        scale_collapse,
    ),
    (
        "SG511", "updates lost to rounding", Symptom.LEARNING_RATE,
        "The steps are smaller than half the spacing of the numbers that hold the weights, so that nothing changes.",
        "Update ratio exactly 0 in 5 looks at a positive learning rate and gradient.",
        "Micikevicius et al. 2018, sec. 3.1 (master weights); Zamirai et al. 2020 (bfloat16, stochastic rounding).",
        "Keep the weights in float32 (autocast instead of casting the model), or raise the learning rate.",
        lost_updates,
    ),
    (
        "SG512", "clipped before unscale_", Symptom.LEARNING_RATE,
        "Gradients were clipped while multiplied by the loss scale: what is left is thousands of times too small.",
        "Norm used times loss scale is the same within 2 % in 5 looks, while the scale changes or the norm used is "
        "below 1 % of that before clipping.",
        "torch.amp, working with unscaled gradients.",
        "Call scaler.unscale_(optimizer) before clipping.",
        clipped_before_unscale,
    ),
    (
        "SG513", "gradients never zeroed", Symptom.LEARNING_RATE,
        "Each backward pass adds to all gradients before it.",
        "In 3 looks a step's gradients were still there, unchanged, when the next backward pass began.",
        "Definition.",
        "Call optimizer.zero_grad() once before each backward pass (once a step when accumulating).",
        never_zeroed,
    ),
    (
        "SG514", "weights shrunk by hand", Symptom.LEARNING_RATE,
        "The weights themselves are clipped or shrunk after the step; gradients stay as they are.",
        "Norm of all weights falls by over 0.1 % between two steps in 3 looks.",
        "Definition; the threshold is an own choice.",
        "For gradient clipping call clip_grad_norm_ between backward and step; to shrink weights use weight_decay.",
        shrunk_by_hand,
    ),
    (
        "SG515", "accumulation without division", Symptom.LEARNING_RATE,
        "Gradients of several batches are added, not averaged: the learning rate is multiplied by their number.",
        "The same number of backward passes, over one, in 10 looks, each from a mean that nothing divides.",
        "Definition; several losses added on purpose look the same.",
        "Divide the loss by the number of accumulated batches, if they are parts of one.",
        undivided,
    ),
    (
        "SG516", "many steps skipped", Symptom.NONFINITE,
        "The loss scaler throws away many steps because of overflows.",
        "Over 20 % of the last 50 looks.",
        "Micikevicius et al. 2018: overflows are rare after the first steps; the threshold is an own choice.",
        "Raise the scaler's growth_interval, or use bfloat16.",
        many_skipped,
    ),
    (
        "SG517", "float16 underflow", Symptom.VANISHING,
        "Gradients are so small that float16 keeps few of their bits or none.",
        "Over half of the nonzero entries of a float16 gradient at a layer's output are below float16's smallest "
        "normal number, 6.1e-5, in the median of 5 looks.",
        "Micikevicius et al. 2018, sec. 3.2 and fig. 3 (31 % of values became 0 without a loss scale); half is an own "
        "choice.",
        "Use torch.amp.GradScaler, raise its init_scale, or use bfloat16.",
        underflow,
    ),
    (
        "SG518", "scheduler before optimizer", Symptom.LEARNING_RATE,
        "scheduler.step() comes before optimizer.step(), so that the first learning rates of the schedule are skipped.",
        "One scheduler step or more before the optimizer's first.",
        "torch.optim, how to adjust learning rate (order since PyTorch 1.1.0).",
        "Call optimizer.step() first, then scheduler.step().",
        scheduled_early,
    ),
)  # fmt: skip
