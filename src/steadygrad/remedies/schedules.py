"""Let the learning rate warm up and decay over the planned steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch.optim.lr_scheduler import LambdaLR

from steadygrad.errors import UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training.setup import TrainingSetup

__all__ = ["Curve", "schedule"]

Decay = Literal["cosine", "step", "exponential", "none"]

_DROPS = (0.5, 0.75)  # of the steps after warm-up; each divides the rate by 10 (He et al. 2015, sec. 4.2)
_EXPONENTIAL_END = 0.01  # share of the rate left at the last step


@dataclass(frozen=True)
class Curve:
    """The share of the full learning rate at each step: a linear rise, then a decay; for torch's ``LambdaLR``.

    Attributes:
        decay: ``"cosine"`` to 0, ``"step"`` by 10 at half and three quarters, ``"exponential"`` to a hundredth, or
            ``"none"``.
        steps: Length of the training, in optimizer steps; later ones keep the last share.
        warmup: Steps of the rise; the first one has a share of ``1 / warmup``.

    Example:
        >>> curve = Curve("cosine", steps=100, warmup=4)
        >>> [curve(step) for step in (0, 1, 3, 4, 52, 100)]
        [0.25, 0.5, 1.0, 1.0, 0.5, 0.0]
    """

    decay: Decay
    steps: int
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """Return the share for the step that follows ``step`` others, in [0, 1]."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.decay == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        if self.decay == "step":
            return 0.1 ** sum(done >= drop for drop in _DROPS)
        return _EXPONENTIAL_END**done if self.decay == "exponential" else 1.0


@remedy(
    Card(
        name="schedule",
        treats=(Symptom.LEARNING_RATE,),
        site=Site.OPTIMIZER,
        summary="Let the learning rate rise at the start and decay towards the end.",
        reference="Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983; Goyal et al. 2017, "
        "https://arxiv.org/abs/1706.02677, sec. 2.2, for warm-up",
        hurts="A training stopped early or prolonged stands at the wrong place of the curve.",
        not_for="Vanishing. Explosion that is there at the first step, before the rate has any say.",
        formula="lr(t) = lr * min(1, (t + 1) / warmup), then lr * (1 + cos(pi t / T)) / 2 or another decay",
    )
)
def schedule(setup: TrainingSetup, *, decay: Decay = "cosine", warmup: float = 0.05) -> TrainingSetup:
    """Replace the learning-rate schedule; the optimizer's own rate is its peak.

    Args:
        setup: The set-up to change; its ``steps`` are the length of the schedule.
        decay: ``"cosine"`` to 0, ``"step"`` by 10 at half and three quarters, ``"exponential"`` to a hundredth, or
            ``"none"``.
        warmup: Share of the steps in which the rate rises, at least 0 and below 1.
    """
    if not 0 <= warmup < 1:
        raise UsageError(f"schedule: expected warmup at least 0 and below 1, got {warmup}. It is a share of the steps.")
    curve = Curve(decay, setup.steps, round(warmup * setup.steps))
    return setup.replace(scheduler=partial(LambdaLR, lr_lambda=curve))
