"""Small trainings and the slow obvious way to the numbers that a monitor must show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.monitor import Monitor


def mlp(width: int = 12, depth: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def batch(rows: int = 16, width: int = 12, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    return x, torch.randint(0, 3, (rows,), generator=generator)


def true_grads(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from autograd alone: no ``.grad`` is touched."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), retain_graph=True), strict=True))


def layer_norms(tensors: dict[str, Tensor]) -> dict[str, float]:
    """Norm over all parameters of each layer, in float64."""
    squares: dict[str, float] = {}
    for name, tensor in tensors.items():
        layer = name.rpartition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + tensor.detach().double().square().sum().item()
    return {layer: total**0.5 for layer, total in squares.items()}


def global_norm(tensors: dict[str, Tensor]) -> float:
    return sum(value**2 for value in layer_norms(tensors).values()) ** 0.5


def shown(monitor: Monitor, statistic: str, look: int = -1) -> dict[str, float]:
    """One statistic of one look by layer, the layers without it left out."""
    column = monitor.history.column(statistic)[look]
    return {name: value for name, value in zip(monitor.history.layers, column.tolist(), strict=True) if value == value}


def total(monitor: Monitor, statistic: str, look: int = -1) -> float:
    return float(monitor.history.column(statistic, of="step")[look])


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    seed: int = 0,
    rows: int = 16,
    before_step: Callable[[], None] = lambda: None,
) -> list[float]:
    losses = []
    for step in range(steps):
        x, y = batch(rows, seed=seed + step)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        before_step()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether all parameters and buffers are equal bit for bit."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(np.array_equal(a.numpy(), b.numpy(), equal_nan=True) for a, b in pairs)
