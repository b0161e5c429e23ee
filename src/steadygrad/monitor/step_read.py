"""What one look at one optimizer's step gave, one entry a parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["StepRead"]


@dataclass
class StepRead:
    """Facts of a look that are known at once, and numbers that come with :meth:`fill`; NaN is what was not seen.

    Attributes:
        step: Steps of the optimizer before this one.
        skipped: Whether a loss scaler left the step out.
        rate: Largest learning rate of a group.
        unseen: Whether gradients came unseen because a loss scaler or a late start was in the way.
        missed: Parameters whose gradient arrived without our hook.
        gone: Parameters without a gradient after the step.
        direct: Norm and non-finite entries of gradients that were measured one by one, by parameter.
        arrived: Sums of squares of the gradients before clipping, still times ``scale``.
        used: The same as the optimizer used them.
        weights: Sums of squares of the weights before the step.
        moved: Sums of squares of the step.
        nonfinite: Entries of the gradients that are not finite.
        scale: Loss scale, NaN without one.
    """

    step: int
    skipped: bool
    rate: float
    unseen: bool
    missed: Sequence[int]
    gone: Sequence[int]
    direct: Mapping[int, tuple[float, int]]
    arrived: np.ndarray = field(init=False)
    used: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)
    moved: np.ndarray = field(init=False)
    nonfinite: np.ndarray = field(init=False)
    scale: float = math.nan

    def fill(self, rows: np.ndarray, scale: float) -> None:
        """Take the numbers: rows arrived, non-finite, used, non-finite of those, weights, moved."""
        self.arrived, self.nonfinite, self.used, used_bad, self.weights, self.moved = rows
        self.scale = scale
        for index, (norm, bad) in self.direct.items():
            self.arrived[index], self.nonfinite[index] = norm * norm, bad
        # What came without our hook: a group just added, an optimizer in the backward pass. Nothing clipped it that we
        # know of, unless a loss scaler had it in hand.
        if self.missed:
            missed = list(self.missed)
            self.arrived[missed] = math.nan if self.unseen else self.used[missed]
            self.nonfinite[missed] = used_bad[missed]
        if self.gone:
            self.used[list(self.gone)] = math.nan
        self.skipped |= not math.isnan(scale) and bool(np.nansum(self.nonfinite))
