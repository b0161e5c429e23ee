"""What a score is held against: chance, luck, and what a sound shallow network reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from steadygrad.doctor.reference import task_and_output
from steadygrad.training import Data, TrainingSetup, chance_of, device_of, labels_of, one_pass, target_of

__all__ = ["GOAL_SHARE", "Yardstick", "yardstick"]

# A cure must close this share of the gap between chance and the reference learner.
GOAL_SHARE = 0.97
# Standard deviations of a score by luck: 1 in 700 for one score, and a treatment looks at a dozen.
SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What scores on one set of data are held against.

    Attributes:
        metric: Name of the score.
        chance: Score of the best constant answer; None where it is not known (a metric or loss of the user's own).
        luck: How far above chance a score may lie by luck, given how many samples are scored.
        reference: Score of a sound shallow network; None if none fits the data, or if it is no better than luck.
    """

    metric: str
    chance: float | None = None
    luck: float = 0.0
    reference: float | None = None

    @property
    def goal(self) -> float | None:
        """The score that counts as cured."""
        return self.at(GOAL_SHARE)

    def at(self, share: float) -> float | None:
        """Return the score that lies ``share`` of the way from chance to the reference; None without a reference."""
        if self.chance is None or self.reference is None:
            return None
        return self.chance + share * (self.reference - self.chance)

    def towards_perfect(self, share: float) -> float | None:
        """Return the score that lies ``share`` of the way from chance to a perfect answer: 1, for accuracy and R2."""
        return replace(self, reference=1.0).at(share)

    @property
    def luckiest(self) -> float:
        """The highest score that may be luck; ``-inf`` where chance is not known."""
        return -math.inf if self.chance is None else self.chance + self.luck

    def beyond_luck(self, score: float) -> bool:
        """Whether a score is too good to be luck; any finite one is where chance is not known."""
        return math.isfinite(score) and score > self.luckiest


def yardstick(setup: TrainingSetup, data: Data, references: Sequence[float] = ()) -> Yardstick:
    """Return the yardstick for scores on ``data``.

    Luck is three standard deviations: of the accuracy ``c`` of a constant answer, ``sqrt(c (1 - c) / n)``; R2 of
    predictions that know nothing of the targets exceeds 0 by at most ``z**2 / n`` where their correlation with the
    targets is ``z`` standard deviations above 0. At most half of what is left above chance.

    Args:
        setup: The set-up that is scored.
        data: What it is scored on.
        references: Scores of the shallow network on the same data; empty if none fits.
    """
    task, _ = task_and_output(setup)
    if task.kind not in ("classes", "binary", "real"):
        return Yardstick(task.name)
    batches = one_pass(data, setup.batch_size, device_of(setup))
    targets = labels_of(task, (target_of(batch) for batch in batches))
    chance = chance_of(task, targets)
    assert chance is not None
    if task.kind == "real":
        luck = SIGMAS**2 / targets.numel()
    else:
        luck = SIGMAS * math.sqrt(chance * (1 - chance) / targets.numel())
    found = Yardstick(task.name, chance, min(luck, (1 - chance) / 2))
    reference = fmean(references) if references else -math.inf
    return Yardstick(task.name, chance, found.luck, reference) if found.beyond_luck(reference) else found
