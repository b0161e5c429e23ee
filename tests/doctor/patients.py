"""Small networks, sick and healthy, on data that a few dozen steps can learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.records import (
    Blueprint,
    Diagnosis,
    Finding,
    Layer,
    Observation,
    Role,
    Severity,
    Symptom,
    TargetKind,
)
from steadygrad.training import TrainingSetup, seeded

ROWS, LEARNED = 400, 300  # all rows, and those that are not for validation
Pair = tuple[Tensor, Tensor]


def clusters(classes: int = 3, features: int = 8) -> Pair:
    """Return Gaussian clusters a few standard deviations apart, and which one each sample comes from."""
    g = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (ROWS,), generator=g)
    centers = 2 * torch.randn(classes, features, generator=g)
    return centers[target] + torch.randn(ROWS, features, generator=g), target


def plane(scale: float = 1.0, shift: float = 0.0) -> Pair:
    """Return normal inputs and targets that are linear in them, save for a tenth of noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 8, generator=g)
    y = x @ torch.randn(8, 1, generator=g) / 8**0.5 + 0.1 * torch.randn(ROWS, 1, generator=g)
    return x, y * scale + shift


def images() -> Pair:
    """Return noise of which the upper half is brighter in the one class and darker in the other."""
    g = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (ROWS,), generator=g)
    x = 0.5 * torch.randn(ROWS, 1, 8, 8, generator=g)
    x[:, :, :4] += (target * 2 - 1)[:, None, None, None].float()
    return x, target


def mlp(outputs: int = 3, depth: int = 3, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return a network of ``depth`` weight layers, 8 inputs, width 16, drawn from seed 0."""
    layers: list[nn.Module] = []
    with seeded(0):
        for layer in range(depth - 1):
            layers += [nn.Linear(16 if layer else 8, 16), activation()]
        return nn.Sequential(*layers, nn.Linear(16, outputs))


def badly_scaled(depth: int = 5, factor: float = 0.05) -> nn.Sequential:
    """Return a network whose weights are 20 times too small, so that it sits at chance."""
    model = mlp(depth=depth)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() > 1 else 1.0)
    return model


def setup_of(
    model: nn.Module | None = None,
    data: Pair | None = None,
    loss: Any = F.cross_entropy,
    lr: float = 0.1,
    **changes: Any,
) -> TrainingSetup:
    """Return a set-up with plain SGD, 40 steps of 32 samples, three quarters of the data to learn from."""
    x, y = data or clusters()
    settings: dict[str, Any] = {
        "train": (x[:LEARNED], y[:LEARNED]),
        "validation": (x[LEARNED:], y[LEARNED:]),
        "optimizer": partial(torch.optim.SGD, lr=lr),
        "batch_size": 32,
        "steps": 40,
    }
    return TrainingSetup(model or mlp(), loss, **settings | changes)


def sick_setup(**changes: Any) -> TrainingSetup:
    """Return a set-up at chance that initialization cures."""
    return setup_of(badly_scaled(), **changes)


def diagnosis_of(
    *found: tuple[str, Symptom],
    loss: str = "cross_entropy",
    head: str | None = None,
    target: TargetKind = TargetKind.CLASS_INDEX,
    severity: Severity = Severity.ERROR,
) -> Diagnosis:
    """Return a diagnosis with findings of these codes and symptoms."""
    findings = tuple(Finding(code, symptom, severity, "message", "advice") for code, symptom in found)
    layers = (Layer("0", "0", "Linear", Role.LINEAR),)
    blueprint = Blueprint(layers, loss=loss, head=head, target_kind=target)
    return Diagnosis(findings, Observation(1.0, (), 1.0), blueprint)
