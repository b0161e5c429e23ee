"""What one look at a network measured: numbers only, no judgement."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerStats", "Moments", "Observation", "Outlook"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Describe one tensor. All but ``nonfinite`` and ``numel`` are taken over its finite entries.

    ``rms`` is exact from 1e-300 to 1e300, whatever the dtype of the tensor: it reads neither 0 nor inf where the
    entries are neither.
    """

    rms: float
    mean: float
    abs_max: float
    zero_fraction: float
    nonfinite: int
    numel: int


@dataclass(frozen=True, slots=True)
class LayerStats:
    """The measurements of one call of one layer; None where the thing does not exist or was not seen.

    Attributes:
        name: The name of the same call in :class:`~steadygrad.records.Blueprint`.
        output: The layer's output.
        signal: RMS of the output's deviation from its mean over the batch: what the layer says *about the input*.
            A deep sigmoid stack keeps an ``output.rms`` near 0.5 while its ``signal`` falls to 0.
        dead_fraction: Share of units that are exactly zero for every sample of the batch (activations only).
        saturated_fraction: Share of entries on a bound of the activation, where its slope is below 2.5 % of the
            steepest (bounded activations only).
        output_grad: The loss gradient with respect to the layer's output.
        weight: All weights of the layer with two or more dimensions, as one; what a parametrization makes of them.
        weight_grad: Their gradient, as the optimizer finds it; None if no gradient arrived.
        update_ratio: ``rms(step) / rms(weight)`` of one step of the set-up's own optimizer, on what it steps on.
    """

    name: str
    output: Moments | None = None
    signal: float | None = None
    dead_fraction: float | None = None
    saturated_fraction: float | None = None
    output_grad: Moments | None = None
    weight: Moments | None = None
    weight_grad: Moments | None = None
    update_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A handful of real steps on a copy of a set-up. Losses and scores are those of the same training samples.

    Attributes:
        losses: The loss of each step's batch, before the step.
        before: Loss before the first step.
        after: Loss after the last one; ``inf`` if it diverged.
        score_before: Score before, higher is better.
        score_after: Score after; ``-inf`` if it diverged.
        metric: Name of the score.
        chance: Score of the best constant answer; None where it is not known.
        linear: What each of the first steps should change its batch's loss by, to first order: gradient times step.
        changes: What it did change it by; ``inf`` if the loss then was not finite.
    """

    losses: tuple[float, ...]
    before: float
    after: float
    score_before: float
    score_after: float
    metric: str
    chance: float | None = None
    linear: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a network.

    Attributes:
        loss: The loss of the batch; may be non-finite.
        layers: One entry a layer call, in execution order, in step with ``Blueprint.layers``.
        grad_norm: The global L2 norm of all parameter gradients, before any clipping.
        output: The model's output; None if it is no floating tensor.
        output_signal: RMS of the output's deviation from its mean over the batch.
        outlook: What a handful of real steps showed; None if none were made.
        step: The training step at which the look was taken; 0 for an untrained network.
    """

    loss: float
    layers: tuple[LayerStats, ...]
    grad_norm: float
    output: Moments | None = None
    output_signal: float | None = None
    step: int = 0
    outlook: Outlook | None = None
