"""Recurrent networks and a task that asks how far back they remember."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.claims.networks import log10, rms
from steadygrad.training import TrainingSetup, seeded

UNITS, FEATURES, CLASSES = 24, 8, 4
ROWS, TEST_ROWS, BATCH = 1024, 512, 64
CELLS: dict[str, type[nn.RNNBase]] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


class LastState(nn.Module):
    """A recurrent network whose last output is read by a linear layer."""

    def __init__(self, cell: str, units: int = UNITS) -> None:
        super().__init__()
        self.cells = CELLS[cell](FEATURES, units, batch_first=True)
        self.out = nn.Linear(units, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores, shape ``(batch, classes)``, of inputs ``(batch, time, features)``."""
        return self.out(self.cells(x)[0][:, -1])


def network(cell: str, seed: int, recurrent_scale: float = 1.0) -> LastState:
    """Return a network with PyTorch's own weights, those from state to state multiplied by ``recurrent_scale``."""
    with seeded(seed):
        model = LastState(cell)
        with torch.no_grad():
            model.cells.weight_hh_l0.mul_(recurrent_scale)
    return model


def recall(length: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return sequences whose first step shows a class, followed by noise to be ignored, and the classes."""
    with seeded(seed):
        y = torch.randint(CLASSES, (rows,))
        x = 0.3 * torch.randn(rows, length, FEATURES)
        x[torch.arange(rows), 0, y] += 2.0
    return x, y


def on_recall(model: nn.Module, length: int, lr: float = 0.01) -> TrainingSetup:
    """Return the set-up that teaches a network, by Adam, to tell the class after ``length`` steps."""
    return TrainingSetup(
        model,
        F.cross_entropy,
        recall(length, ROWS, seed=10),
        optimizer=partial(torch.optim.Adam, lr=lr),
        validation=recall(length, TEST_ROWS, seed=11),
        batch_size=BATCH,
    )


def growth_over_time(model: LastState, length: int) -> float:
    """Return log10 of the loss gradient's RMS at the first input over that at the last one, in float64."""
    x, y = recall(length, 64, seed=12)
    x = x.double().requires_grad_()
    F.cross_entropy(model.double()(x), y).backward()
    assert x.grad is not None
    return log10(rms(x.grad[:, 0])) - log10(rms(x.grad[:, -1]))
