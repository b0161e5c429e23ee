from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.training import TrainingSetup

MakeSetup = Callable[..., TrainingSetup]


@pytest.fixture
def make_setup() -> MakeSetup:
    """Wrap a model into a small classification set-up with inputs of the given shape."""

    def make(model: nn.Module, shape: tuple[int, ...] = (8,), classes: int = 3, **changes: object) -> TrainingSetup:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(48, *shape, generator=generator)
        y = torch.randint(classes, (48,), generator=generator)
        setup = TrainingSetup(
            model, F.cross_entropy, (x, y), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch_size=32
        )
        return setup.replace(**changes)

    return make


@pytest.fixture
def mlp() -> Callable[..., nn.Sequential]:
    """Build a plain network of equal hidden layers."""

    def build(
        activation: type[nn.Module] = nn.ReLU, hidden: int = 3, width: int = 8, outputs: int = 3
    ) -> nn.Sequential:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += [nn.Linear(width, width), activation()]
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    return build
