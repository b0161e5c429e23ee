"""The table of all remedies that act at the optimizer's step or on weights after it, and one training with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.remedies import make
from steadygrad.training import TrainingSetup
from steadygrad.training.loop import make_optimizer

from . import loops
from .loops import Way
from .transforms import STEPS, batch, network

# A new remedy is a line here, with settings under which it acts within the steps of `train`.
CASES: dict[str, tuple[str, dict]] = {
    "centered_updates": ("centered_updates", {}),
    "clip_weights": ("clip_weights", {"bound": 0.2}),
    "l1_penalty": ("l1_penalty", {"strength": 0.1}),
    "learning_rate": ("learning_rate", {"lr": 0.003}),
    "longer_training": ("longer_training", {}),
    "max_norm": ("max_norm", {"bound": 0.5}),
    "max_norm of layers": ("max_norm", {"bound": 1.0, "over": "layer"}),
    **{
        f"optimizer {name}": ("optimizer", {"name": name, "lr": 0.01})
        for name in ("adamw", "adam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adadelta")
    },
    "schedule": ("schedule", {"warmup": 0.3}),
    "weight_decay": ("weight_decay", {"strength": 0.5}),
}


def train(
    case: str, way: Way = loops.plain, spread: Callable[[nn.Module], nn.Module] = lambda model: model
) -> list[Tensor]:
    """Return the weights after a training on fused AdamW, or on what the remedy puts in its place."""
    fused = partial(torch.optim.AdamW, lr=0.01, fused=True)
    setup = TrainingSetup(network(), F.cross_entropy, batch(0), optimizer=fused, batch_size=8, steps=STEPS)
    if case:
        name, settings = CASES[case]
        setup = make(name, **settings)(setup)
    model = spread(setup.model)
    optimizer = make_optimizer(setup, model)
    scheduler = setup.scheduler(optimizer) if setup.scheduler else None
    advance = way(model, optimizer)
    for step in range(STEPS):
        advance(step)
        if scheduler is not None:
            scheduler.step()
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]
