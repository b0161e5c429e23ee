"""Ways to make an optimizer step: ``way(model, optimizer)`` gives what makes one from its number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .transforms import loss_of

Advance = Callable[[int], object]
Way = Callable[[nn.Module, torch.optim.Optimizer], Advance]


def plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
    def advance(step: int) -> None:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()

    return advance


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
    def advance(step: int) -> None:
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model, step) / 2).backward()
        optimizer.step()

    return advance


def closed(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
    def advance(step: int) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        loss = optimizer.step(closure) if step % 2 else optimizer.step(closure=closure)
        assert loss.isfinite()

    return advance


def compiled(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
    torch._dynamo.reset()
    stepping = torch.compile(optimizer.step, backend="eager")

    def advance(step: int) -> None:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        stepping()

    return advance


def scaled(model: nn.Module, optimizer: torch.optim.Optimizer, unscale: bool = False) -> Advance:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def advance(step: int) -> None:
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    return advance


def unscaled(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
    return scaled(model, optimizer, unscale=True)
