"""Vary the samples while the model trains; what is evaluated stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training import Batch, TrainingSetup, call_model, first_batch
from steadygrad.training.batches import TARGET_NAMES

__all__ = ["Augmented", "augmentation", "check_inputs", "map_inputs", "random_shift", "relative_noise"]

Forward = Callable[[nn.Module, Batch], Any]


def relative_noise(x: Tensor, share: float) -> Tensor:
    """Add Gaussian noise of ``share`` times the standard deviation of all entries, from torch's random state."""
    return x + share * x.std(correction=0) * torch.randn_like(x)


def random_shift(images: Tensor, most: int) -> Tensor:
    """Shift each image by up to ``most`` pixels both ways, zeros moving in, from torch's random state.

    Args:
        images: Shape ``(n, channels, height, width)``.
        most: Largest shift, in pixels.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, [most] * 4)
    down, right = torch.randint(2 * most + 1, (2, n, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (right + torch.arange(width, device=images.device))[:, None, :]
    sample = torch.arange(n, device=images.device)[:, None, None]
    return padded[sample, :, rows, columns].movedim(-1, 1)


@dataclass(frozen=True, slots=True)
class Augmented:
    """A ``forward(model, batch)`` that varies the floating inputs of a batch first, if the model is in training mode.

    Attributes:
        forward: The set-up's own; None for the default.
        noise: Standard deviation of Gaussian noise, as a share of the inputs' own.
        shift: Largest shift of images, in pixels.
    """

    forward: Forward | None
    noise: float
    shift: int

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model."""
        return (self.forward or call_model)(model, map_inputs(batch, self._vary) if model.training else batch)

    def _vary(self, x: Tensor) -> Tensor:
        if self.shift and x.dim() == 4:
            x = random_shift(x, self.shift)
        return relative_noise(x, self.noise) if self.noise else x


def map_inputs(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return a batch with ``change`` made to every floating tensor but the target; other objects are passed through."""
    if isinstance(batch, Mapping):
        return {key: item if key in TARGET_NAMES else _map(item, change) for key, item in batch.items()}
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return _like(batch, [*(_map(item, change) for item in batch[:-1]), batch[-1]])
    return _map(batch, change)


def _map(item: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(item, Tensor):
        return change(item) if item.is_floating_point() and item.dim() else item
    if isinstance(item, Mapping):
        return {key: _map(each, change) for key, each in item.items()}
    return _like(item, [_map(each, change) for each in item]) if isinstance(item, (tuple, list)) else item


def _like(batch: Any, items: list[Any]) -> Any:
    return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)


def check_inputs(where: str, setup: TrainingSetup, images: bool = False) -> None:
    """Make sure that there is a floating input in the first batch, or images.

    Raises:
        NotApplicableError: If there is none.
    """
    found: list[int] = []

    def note(x: Tensor) -> Tensor:
        found.append(x.dim())
        return x

    map_inputs(first_batch(setup), note)
    if not found or (images and 4 not in found):
        wanted = "images of shape (n, channels, height, width)" if images else "a floating tensor"
        raise NotApplicableError(
            f"{where}: expected {wanted} among the inputs of a batch, found none. "
            + ("Reshape flat images in the data." if images else "Indices cannot be varied.")
        )


@remedy(
    Card(
        name="augmentation",
        treats=(),
        site=Site.DATA,
        summary="Add noise to the inputs, or shift images, while the model trains.",
        reference="Bishop 1995, Training with Noise Is Equivalent to Tikhonov Regularization; LeCun et al. 1998",
        hurts="Variations that change the label; noise on inputs that mask or count.",
        cost="one pass over the inputs a step",
        not_for="Vanishing and exploding: gradients pass the same layers, whatever the sample.",
        formula="x <- shift(x) + share * std(x) * N(0, 1)",
    )
)
def augmentation(setup: TrainingSetup, *, noise: float = 0.1, shift: int = 0) -> TrainingSetup:
    """Vary floating inputs in training mode, in place of earlier augmentation; evaluation sees them as they are.

    What is drawn follows torch's global random state, and so the seed of a training.

    Args:
        setup: The set-up to change.
        noise: Standard deviation of the noise as a share of that of the batch's inputs, 0 or above.
        shift: Largest shift in pixels, a whole number; needs inputs of shape ``(n, channels, height, width)``.
    """
    if not 0 <= noise < math.inf or shift < 0 or shift != int(shift):
        raise UsageError(
            f"augmentation: expected noise of 0 or above and shift a whole number of 0 or above, got noise={noise} and "
            f"shift={shift}. Start with noise=0.1, or shift=2 for small images."
        )
    check_inputs("augmentation", setup, images=bool(shift))
    inner = setup.forward.forward if isinstance(setup.forward, Augmented) else setup.forward
    return setup.replace(forward=Augmented(inner, noise, int(shift)))
