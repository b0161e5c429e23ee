"""Soften targets: label smoothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["Smoothed", "label_smoothing"]

_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A loss on softened targets: ``(1 - amount) * target + amount / classes``.

    Attributes:
        loss: Takes probabilities as targets, as cross-entropies do.
        amount: Share of each target that is spread over all classes.
        binary: Whether each entry of the target is the probability of one of two classes. Else classes lie along
            dimension 1 of the output, and targets are class indices or probabilities.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    amount: float
    binary: bool

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        classes = 2 if self.binary else output.shape[1]
        if not self.binary and not target.is_floating_point():
            target = F.one_hot(target, classes).movedim(-1, 1)
        return self.loss(output, target.to(output.dtype) * (1 - self.amount) + self.amount / classes)


@remedy(
    Card(
        name="label_smoothing",
        treats=(),
        site=Site.LOSS,
        summary="Spread a share of each label evenly over all classes.",
        reference="Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, sec. 7",
        hurts="Losses before and after cannot be compared; as a teacher the network says less.",
        not_for="Vanishing and exploding: it changes the gradient of the outputs by a bounded amount and no layer's.",
        formula="target <- (1 - e) * target + e / K; two classes work as well as many",
    )
)
def label_smoothing(setup: TrainingSetup, *, amount: float = 0.1) -> TrainingSetup:
    """Smooth the labels of a cross-entropy, of two classes or many.

    Args:
        setup: The set-up to change.
        amount: Share to spread, at least 0 and below 1.

    Raises:
        NotApplicableError: If the loss is no cross-entropy of its output.
    """
    if not 0 <= amount < 1:
        raise UsageError(f"label_smoothing: expected amount at least 0 and below 1, got {amount}. Start with 0.1.")
    kind = read_blueprint(setup).loss
    inner = setup.loss.loss if isinstance(setup.loss, Smoothed) else setup.loss
    if inner is None or kind not in ("cross_entropy", *_BINARY):
        raise NotApplicableError(
            f"label_smoothing: expected a cross-entropy of output and target, got {kind or 'another loss'}. "
            "Other losses have no label to smooth; one that forward returns has to be changed there."
        )
    if kind in _BINARY:
        return setup.replace(loss=Smoothed(inner, amount, binary=True))
    if isinstance(inner, nn.CrossEntropyLoss):
        inner = copy.deepcopy(inner)
        inner.label_smoothing = amount  # torch's own also knows class weights and ignored classes
        return setup.replace(loss=inner)
    if inner is F.cross_entropy or (isinstance(inner, partial) and inner.func is F.cross_entropy):
        return setup.replace(loss=partial(inner, label_smoothing=amount))
    return setup.replace(loss=Smoothed(inner, amount, binary=False))
