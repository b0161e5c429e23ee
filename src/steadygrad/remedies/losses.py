"""Make loss and output fit: swap the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from steadygrad.errors import NotApplicableError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training.setup import TrainingSetup

__all__ = ["Matched", "loss"]


@dataclass(frozen=True, slots=True)
class Matched:
    """A loss of output and target entry by entry, the target brought to the shape and dtype of the output first.

    Without this, an output of shape ``(n, 1)`` and a target of shape ``(n,)`` broadcast to ``(n, n)``.
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return self.function(output, target.to(output.dtype).reshape(output.shape))


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "nll": F.nll_loss,
    "bce_with_logits": Matched(F.binary_cross_entropy_with_logits),
    "bce": Matched(F.binary_cross_entropy),
    "mse": Matched(F.mse_loss),
}


@remedy(
    Card(
        name="loss",
        treats=(Symptom.WIRING,),
        site=Site.LOSS,
        summary="Replace the loss by the one that fits output and targets.",
        reference="torch.nn.functional; Bishop 2006, sec. 5.2",
        hurts="Losses before and after cannot be compared.",
        not_for="What happens between the hidden layers.",
        formula="cross_entropy: -log softmax(logits)[class]; mse: mean((output - target)^2)",
    )
)
def loss(
    setup: TrainingSetup,
    *,
    to: Literal["cross_entropy", "bce_with_logits", "mse", "nll", "bce", "matched"] = "cross_entropy",
) -> TrainingSetup:
    """Replace the loss, the mean over the batch.

    Args:
        setup: The set-up to change.
        to: ``"cross_entropy"`` and ``"bce_with_logits"`` want logits, ``"nll"`` log-probabilities, ``"bce"``
            probabilities; ``"matched"`` keeps the set-up's own loss and brings the target to the output's shape.
    """
    if setup.loss is None:
        raise NotApplicableError(
            "loss: expected a set-up with a loss, but its forward returns the loss itself. Replace it there."
        )
    return setup.replace(loss=Matched(setup.loss) if to == "matched" else _LOSSES[to])
