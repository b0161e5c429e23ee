"""What the probe is tried on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.training import TrainingSetup

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def setup_of(model: nn.Module, loss: Any = F.cross_entropy, train: Any = (X, LABELS), **settings: Any) -> TrainingSetup:
    settings.setdefault("optimizer", lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    return TrainingSetup(model, loss, train, batch_size=12, **settings)


class Net(nn.Module):
    """Children by keyword; the forward pass is given."""

    def __init__(self, run: Any, **children: Any) -> None:
        super().__init__()
        self.run = run
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)
