"""Keep logits from drifting: z-loss and soft cap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["SoftCapped", "WithZLoss", "soft_cap", "z_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
_IGNORED = -100  # the default of torch's cross-entropy


@dataclass(frozen=True, slots=True)
class WithZLoss:
    """A loss plus ``weight * mean(log(Z)^2)``, ``Z`` the sum of the exponentials of a sample's logits.

    The mean is over the samples that count: those whose target is not the ``ignore_index`` of the loss, torch's -100
    if it names none.

    Attributes:
        loss: Of logits whose classes lie along dimension 1, or along the last one if only that fits the target.
        weight: Factor, 0 or above.
    """

    loss: Loss
    weight: float

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        classes_first = target.shape == output.shape[:1] + output.shape[2:]  # as torch has them
        classes_last = target.shape == output.shape[:-1] and not classes_first
        log_z = output.logsumexp(-1 if classes_last else 1)
        counts = torch.ones_like(log_z, dtype=torch.bool)
        if not target.is_floating_point() and target.numel() == log_z.numel():
            counts = target.reshape(log_z.shape) != _ignored_index(self.loss)
        squares = torch.where(counts, log_z, 0.0).square()  # what is ignored may be inf
        return self.loss(output, target) + self.weight * squares.sum() / counts.sum().clamp(min=1)


def _ignored_index(loss: object) -> int:
    """Return the ``ignore_index`` of a loss module, of a ``partial``, or of what wrappers of ours hold."""
    while hasattr(loss, "loss"):
        loss = loss.loss
    index: int = getattr(loss, "ignore_index", getattr(loss, "keywords", {}).get("ignore_index", _IGNORED))
    return index


@dataclass(frozen=True, slots=True)
class SoftCapped:
    """A loss of ``cap * tanh(output / cap)``.

    The order of the logits stays, so the model's own output, left as it is, answers alike; its probabilities do not.

    Attributes:
        loss: Of logits.
        cap: Largest absolute logit, above 0.
    """

    loss: Loss
    cap: float

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        # By this name a diagnosis does not take the tanh of the loss for one between the layers.
        return self.loss(self.cap * torch.ops.aten.tanh.default(output / self.cap), target)


@remedy(
    Card(
        name="z_loss",
        treats=(),
        site=Site.LOSS,
        summary="Add a small penalty that keeps the logits of a softmax near 0.",
        reference="Chowdhery et al. 2022 (PaLM), https://arxiv.org/abs/2204.02311, sec. 5; Wortsman et al. 2023, "
        "https://arxiv.org/abs/2309.14322, sec. 3.1.2",
        hurts="Where the scale of the logits carries meaning.",
        cost="one logsumexp a step",
        not_for="Vanishing and exploding between layers: it reaches the output alone.",
        formula="loss <- loss + w * mean(log(Z)^2), Z = sum(exp(logits)), over the samples that the loss counts",
    )
)
def z_loss(setup: TrainingSetup, *, weight: float = 1e-4) -> TrainingSetup:
    """Add a z-loss to a cross-entropy over classes, in place of an earlier one.

    Args:
        setup: The set-up to change.
        weight: Factor of the penalty, 0 or above.
    """
    if not 0 <= weight < math.inf:
        raise UsageError(f"z_loss: expected weight of 0 or above, got {weight}. Start with 1e-4.")
    loss = _loss_of_logits("z_loss", setup, ("cross_entropy",))
    inner = loss.loss if isinstance(loss, WithZLoss) else loss
    return setup.replace(loss=WithZLoss(inner, weight))


@remedy(
    Card(
        name="soft_cap",
        treats=(Symptom.NONFINITE,),
        site=Site.LOSS,
        summary="Squeeze logits smoothly into a bounded range before the loss.",
        reference="Gemma Team 2024 (Gemma 2), https://arxiv.org/abs/2408.00118, sec. 2",
        hurts="Logits far beyond the cap get no gradient any more: a network that starts there does not learn.",
        cost="one tanh a logit",
        not_for="Vanishing and exploding between layers: the loss stays finite, the layers below stay as they are.",
        formula="logits <- c * tanh(logits / c)",
    )
)
def soft_cap(setup: TrainingSetup, *, cap: float = 30.0) -> TrainingSetup:
    """Cap the logits that the loss sees, in place of an earlier cap.

    Args:
        setup: The set-up to change.
        cap: Largest absolute logit, above 0.
    """
    if not 0 < cap < math.inf:
        raise UsageError(f"soft_cap: expected cap above 0 and finite, got {cap}. Start with 30.")
    loss = _loss_of_logits("soft_cap", setup, ("cross_entropy", "binary_cross_entropy_with_logits"))
    inner = loss.loss if isinstance(loss, SoftCapped) else loss
    return setup.replace(loss=SoftCapped(inner, cap))


def _loss_of_logits(where: str, setup: TrainingSetup, kinds: tuple[str, ...]) -> Loss:
    kind = read_blueprint(setup).loss
    if setup.loss is None or kind not in kinds:
        raise NotApplicableError(
            f"{where}: expected a loss of logits and target ({' or '.join(kinds)}), got {kind or 'another loss'}. "
            "Only logits can drift; a loss that forward returns has to be changed there."
        )
    return setup.loss
