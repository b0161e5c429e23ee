"""Train on adversarial samples of the fast gradient sign method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies.augmentation import Forward, check_inputs, map_inputs
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.recorder import Recorder
from steadygrad.training import Batch, TrainingSetup, call_model, preserved_random_state, target_of

__all__ = ["WithAdversaries", "adversarial_samples", "fgsm"]


def fgsm(x: Tensor, gradient: Tensor, epsilon: float | Tensor) -> Tensor:
    """Return the adversarial sample ``x + epsilon * sign(gradient of the loss by x)``; it may leave the range of ``x``.

    Reference:
        Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015, sec. 4. https://arxiv.org/abs/1412.6572
    """
    return x + epsilon * gradient.sign()


@dataclass(frozen=True, slots=True)
class WithAdversaries:
    """A ``forward(model, batch)`` that replaces the second half of a batch by adversarial samples, in training mode.

    They are made by the weights of the moment, in a forward and backward pass of their own that leaves no trace:
    buffers are put back, and the pass that trains draws the same dropout masks. They stay within the range of the
    batch's inputs, as pixels have one (the paper does not clip). Evaluation sees clean samples, and so does a
    diagnosis, whose recorder would take the extra pass for further layers.

    Attributes:
        forward: The set-up's own; None for the default.
        loss: The set-up's own.
        epsilon: Step of each entry, as a share of the standard deviation of the batch's inputs.
    """

    forward: Forward | None
    loss: Callable[[Any, Any], Tensor]
    epsilon: float

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model."""
        watched = any(isinstance(mode, Recorder) for mode in _get_current_function_mode_stack())
        if model.training and torch.is_grad_enabled() and not watched:
            batch = self._attacked(model, batch)
        return (self.forward or call_model)(model, batch)

    def _attacked(self, model: nn.Module, batch: Batch) -> Batch:
        leaves: list[Tensor] = []

        def to_leaf(x: Tensor) -> Tensor:
            leaves.append(x.detach().requires_grad_())
            return leaves[-1]

        clean = map_inputs(batch, to_leaf)
        with preserved_random_state(), _kept_buffers(model):
            loss = self.loss((self.forward or call_model)(model, clean), target_of(batch))
            gradients = iter(torch.autograd.grad(loss, leaves, allow_unused=True))
        return map_inputs(batch, lambda x: self._half(x, next(gradients)))

    def _half(self, x: Tensor, gradient: Tensor | None) -> Tensor:
        half = len(x) // 2
        if gradient is None:  # an input that the loss does not depend on
            return x
        epsilon = self.epsilon * x.std(correction=0)
        attacked = fgsm(x[half:], gradient[half:], epsilon)
        return torch.cat([x[:half], attacked.clamp(x.min(), x.max())])


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put back what a pass in training mode changes, as BatchNorm's statistics."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in kept:
                if not torch.equal(buffer, old):
                    buffer.copy_(old)


@remedy(
    Card(
        name="adversarial_samples",
        treats=(),
        site=Site.DATA,
        summary="Train on half clean and half adversarial samples of the fast gradient sign method.",
        reference="Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572; Kurakin et al. 2017, "
        "https://arxiv.org/abs/1611.01236, for mixed batches",
        hurts="Accuracy on clean samples; gradients of the inputs grow during training more often than they shrink.",
        cost="one further forward and backward pass a step",
        not_for="Vanishing and exploding: no layer is changed.",
        formula="x <- x + e * sign(dL/dx) within the range of x, for half of each batch",
    )
)
def adversarial_samples(setup: TrainingSetup, *, epsilon: float = 0.1) -> TrainingSetup:
    """Replace half of each training batch by adversarial samples, in place of earlier ones.

    Apply it after every change of the loss: it keeps the one it finds.

    Args:
        setup: The set-up to change.
        epsilon: Step of each entry as a share of the standard deviation of the batch's inputs, 0 or above.

    Raises:
        NotApplicableError: If there is no floating input, or forward returns the loss itself.
    """
    if not 0 <= epsilon < math.inf:
        raise UsageError(f"adversarial_samples: expected epsilon of 0 or above, got {epsilon}. Start with 0.1.")
    if setup.loss is None:
        raise NotApplicableError(
            "adversarial_samples: expected a set-up with a loss, but its forward returns the loss itself. "
            "Use fgsm in that forward."
        )
    check_inputs("adversarial_samples", setup)
    inner = setup.forward.forward if isinstance(setup.forward, WithAdversaries) else setup.forward
    return setup.replace(forward=WithAdversaries(inner, setup.loss, epsilon))
