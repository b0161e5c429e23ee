"""Hear of calls that torch has no hook for: ``backward`` (its loss), ``GradScaler.step`` and a scheduler's ``step``.

All are wrapped while a monitor is attached and put back when the last one leaves. The wrapped function does what it
did; a listener's exception never reaches it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, ReduceLROnPlateau

__all__ = ["Listener", "listen", "unlisten"]


class Listener(Protocol):
    """What a monitor wants to hear."""

    def on_backward(self, tensors: Any) -> None:
        """Before a backward pass from ``tensors``."""

    def after_backward(self) -> None:
        """After it, and before anything can have changed its gradients."""

    def on_scaler(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """Before a loss scaler steps an optimizer."""

    def on_scaled(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """After a loss scaler stepped an optimizer, or did not because of an overflow."""

    def on_schedule(self, scheduler: LRScheduler) -> None:
        """Before a learning-rate scheduler makes a step; not at its first, which it makes itself when it is built."""


# Those that do not go through the base class's step.
OWN_STEP = (ReduceLROnPlateau, CosineAnnealingWarmRestarts)
_listeners: list[Listener] = []
_originals: list[tuple[Any, str, Callable[..., Any]]] = []


def listen(listener: Listener) -> None:
    """Tell ``listener`` from now on."""
    if not _listeners:
        _wrap(torch.autograd, "backward", _wrapped_backward)
        _wrap(GradScaler, "step", _wrapped_step)
        for kind in (LRScheduler, *OWN_STEP):
            _wrap(kind, "step", _wrapped_schedule)
    _listeners.append(listener)


def unlisten(listener: Listener) -> None:
    """Tell ``listener`` no more."""
    if listener not in _listeners:
        return
    _listeners.remove(listener)
    if not _listeners:
        while _originals:
            owner, name, original = _originals.pop()
            setattr(owner, name, original)


def _wrap(owner: Any, name: str, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    _originals.append((owner, name, original))
    setattr(owner, name, wrapped(original))


def _wrapped_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(tensors, *args, **kwargs)
        for listener in tuple(_listeners):
            listener.on_backward((tensors,) if isinstance(tensors, Tensor) else tensors)
        try:
            return original(tensors, *args, **kwargs)
        finally:
            for listener in tuple(_listeners):
                listener.after_backward()

    return backward


def _wrapped_step(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def step(self: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        for listener in tuple(_listeners):
            listener.on_scaler(self, optimizer)
        result = original(self, optimizer, *args, **kwargs)
        for listener in tuple(_listeners):
            listener.on_scaled(self, optimizer)
        return result

    return step


def _wrapped_schedule(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def step(self: LRScheduler, *args: Any, **kwargs: Any) -> Any:
        if not self._is_initial:
            for listener in tuple(_listeners):
                listener.on_schedule(self)
        return original(self, *args, **kwargs)

    return step
