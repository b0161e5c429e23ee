"""Small networks, healthy and sick."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from steadygrad.training import TrainingSetup

FEATURES, CLASSES, BATCH = 16, 4, 64
sgd = partial(torch.optim.SGD, lr=0.1)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*(shape or (BATCH, FEATURES)), generator=torch.Generator().manual_seed(1))


def labels(batch: int = BATCH, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(2))


def setup(model: nn.Module, x: Any = None, y: Any = None, loss: Any = F.cross_entropy, **more: Any) -> TrainingSetup:
    train = (inputs() if x is None else x, labels() if y is None else y)
    return TrainingSetup(model, loss, train, **{"optimizer": sgd, **more})


def regression(model: nn.Module, y: Tensor | None = None, **more: Any) -> TrainingSetup:
    return setup(model, y=inputs(BATCH, 1) if y is None else y, **{"loss": F.mse_loss, **more})


def drawn(model: nn.Module, gain: float = 2**0.5) -> nn.Module:
    """Draw the weights of linear layers and convolutions by the fan rule, biases 0, always the same."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            std = gain / module.weight[0].numel() ** 0.5
            nn.init.normal_(module.weight, 0.0, std, generator=generator)
            nn.init.zeros_(module.bias)
    return model


def plain(
    depth: int = 12, activation: Callable[[], nn.Module] = nn.ReLU, gain: float = 2**0.5, outputs: int = CLASSES
) -> nn.Sequential:
    """A chain in which linear layer ``i`` is module ``2 i`` and its activation ``2 i + 1``."""
    width = 64
    parts: list[nn.Module] = []
    for index in range(depth - 1):
        parts += [nn.Linear(width if index else FEATURES, width), activation()]
    return drawn(nn.Sequential(*parts, nn.Linear(width if depth > 1 else FEATURES, outputs)), gain)


def scaled(model: nn.Module, layer: str, factor: float) -> nn.Module:
    with torch.no_grad():
        model.get_submodule(layer).weight.mul_(factor)
    return model


def lengths_apart(model: nn.Module, length: float, direction: float) -> nn.Module:
    """Split all weights into lengths and directions, which alone do not count, and multiply both."""
    for module in model.modules():
        if type(module) is nn.Linear:
            parametrized = parametrizations.weight_norm(module).parametrizations["weight"]
            with torch.no_grad():
                parametrized.original0.mul_(length)
                parametrized.original1.mul_(direction)
    return model


def biased(model: nn.Module, layer: str, bias: float) -> nn.Module:
    nn.init.constant_(model.get_submodule(layer).bias, bias)
    return model


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def inserted(position: int, part: nn.Module, depth: int = 12) -> nn.Sequential:
    """A healthy chain with a part before linear layer ``position``; it becomes module ``2 * position``."""
    modules = list(plain(depth))
    return nn.Sequential(*modules[: 2 * position], part, *modules[2 * position :])


class Residual(nn.Module):
    """``x + branch(x)``, the branch drawn small, as it should be in a deep net."""

    def __init__(self, blocks: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(FEATURES, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(blocks)
        )
        self.head = nn.Linear(32, CLASSES)
        drawn(self)
        for block in self.blocks:
            scaled(block, "2", blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Towers(nn.Module):
    """Two towers over the two halves of the input, the second one deeper, joined before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long = self._tower(5), self._tower(8)
        self.head = nn.Linear(64, CLASSES)
        drawn(self)

    @staticmethod
    def _tower(depth: int) -> nn.Sequential:
        sizes = [FEATURES // 2, *[32] * depth]
        return nn.Sequential(*(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return self.head(torch.cat([self.short(left), self.long(right)], 1))
