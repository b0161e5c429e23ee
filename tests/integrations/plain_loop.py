"""The training that every framework is asked to do, done by hand: what a monitor should have seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS, CLIP, RATE = 4, 0.5, 0.1
LAYERS = ["0", "2"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def batches(accumulate: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 4, generator=generator), 3 * torch.randn(8, 1, generator=generator))
        for _ in range(STEPS * accumulate)
    ]


def loss_of(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.float() - target).square().mean()


def norms_by_hand(accumulate: int, half: bool) -> tuple[list[list[float]], list[list[float]]]:
    """Return the norm of each layer's gradient at each step, as it arrives and after clipping."""
    model, parts = network(), batches(accumulate)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    arrived, used = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        for x, y in parts[step * accumulate : (step + 1) * accumulate]:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = loss_of(model(x), y)
            (loss / accumulate).backward()
        arrived.append(_norms(model))
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        used.append(_norms(model))
        optimizer.step()
    return arrived, used


def _norms(model: nn.Sequential) -> list[float]:
    layers = [model[0], model[2]]
    return [float(torch.cat([p.grad.double().flatten() for p in layer.parameters()]).norm()) for layer in layers]
