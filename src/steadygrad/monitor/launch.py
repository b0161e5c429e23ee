"""Find the models and optimizers of a script that knows nothing of a monitor, by torch's global hooks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from steadygrad.monitor.activation_tap import inner_model
from steadygrad.monitor.monitor import Monitor

__all__ = ["find_trainings"]


@contextmanager
def find_trainings(monitor: Monitor) -> Iterator[None]:
    """Add every model that is called with gradients recorded, and every optimizer that steps, to an attached monitor.

    A model is the outermost module of a call; it is found before it runs for the first time, so that a compiled one is
    seen too. An optimizer is found at its first step, whose gradients before clipping are therefore not seen.
    """
    known: set[int] = set()
    optimizers: set[int] = set()

    def on_call(module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or id(module) in known or not torch.is_grad_enabled():
            return
        inner = inner_model(module)
        known.update(id(part) for part in (*module.modules(), *inner.modules()))
        fresh = [parameter for parameter in inner.parameters() if id(parameter) not in known]
        if fresh:
            known.update(map(id, fresh))
            monitor.add_model(module, _name(inner, monitor) if monitor.models else "")

    def on_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) not in optimizers:
            optimizers.add(id(optimizer))
            monitor.add_optimizer(optimizer, in_step=True)

    handles = [register_module_forward_pre_hook(on_call), register_optimizer_step_pre_hook(on_step)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _name(model: nn.Module, monitor: Monitor) -> str:
    """Return the name of the script's variable that holds the model, else of its class."""
    variables = vars(sys.modules["__main__"])
    name = next((name for name, value in variables.items() if value is model), type(model).__name__)
    taken = [other for other in monitor.models if other.rstrip("0123456789") == name]
    return f"{name}{len(taken) + 1}" if taken else name
