"""A copy of a set-up's model and loss, where the set-up runs."""

from __future__ import annotations

import copy

from torch import nn

from steadygrad.training.batches import device_of
from steadygrad.training.blame import blamed
from steadygrad.training.setup import TrainingSetup

__all__ = ["copied"]


def copied(setup: TrainingSetup) -> TrainingSetup:
    """Return the set-up with copies of its model and its loss, moved to its device.

    Raises:
        SetupError: If model or loss cannot be copied.
    """
    device = device_of(setup)
    with blamed("set-up: model or loss cannot be copied"):
        model, loss = copy.deepcopy((setup.model, setup.loss))
        model = model.to(device)
        loss = loss.to(device) if isinstance(loss, nn.Module) else loss
    return setup.replace(model=model, loss=loss)
