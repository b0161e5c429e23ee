"""Small trainings for the tests of the lab. Factories stand here so that their source can be read."""

from __future__ import annotations

import copy
import os
import signal
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.lab import Grid
from steadygrad.lab.stack import Case, Stack, batch_rows
from steadygrad.training import TrainingSetup

OPTIMIZERS = {
    kind.__name__: kind
    for kind in (torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adam)
}
ARTICLE = list(product(OPTIMIZERS, (0.001, 0.01, 0.1), (10, 100, 1000), (0.001, 0.01, 0.1)))


def rows(
    count: int = 60, features: int = 6, classes: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, features, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (count,), generator=generator)


DATA = rows()


def perceptron(
    lr: float = 0.1, optimizer: str = "SGD", width: int = 5, steps: int = 8, batch: int = 20, fails: str = ""
) -> tuple[TrainingSetup, tuple[Tensor, Tensor]]:
    """A factory for grids."""
    if fails == "usage":
        from steadygrad.errors import DataFileError

        raise DataFileError("images.gz: expected this file, got none.")
    if fails:
        raise RuntimeError(fails)
    model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
    kind = OPTIMIZERS[optimizer]
    setup = TrainingSetup(
        model, F.cross_entropy, DATA, lambda p: kind(p, lr=lr), validation=DATA, batch_size=batch, steps=steps
    )
    return setup, DATA


def odd(lr: float = 0.1, steps: int = 8) -> TrainingSetup:
    """A network that only the plain loop trains: its dropout draws random numbers."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))
    return TrainingSetup(
        model, F.cross_entropy, DATA, lambda p: torch.optim.SGD(p, lr=lr), validation=DATA, batch_size=20, steps=steps
    )


def article_case(
    optimizer: str, lr: float, batch: int, decay: float, data: tuple[Tensor, Tensor], hidden: tuple[int, int] = (16, 8)
) -> Case:
    """One of the article's configurations on ``data``, whose dtype the network takes, from the same initial weights."""
    torch.manual_seed(0)
    first, second = hidden
    model = nn.Sequential(
        nn.Linear(data[0].shape[1], first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )
    kind = OPTIMIZERS[optimizer]
    setup = TrainingSetup(
        model.to(data[0].dtype),
        F.cross_entropy,
        data,
        lambda parameters: kind(parameters, lr=lr, weight_decay=decay),
        batch_size=batch,
    )
    return Case(setup, seed=0)


def losses(stack: Stack, steps: int) -> Tensor:
    return torch.cat([stack.advance(steps // 3), stack.advance(steps - steps // 3)], 1)


def torch_losses(case: Case, steps: int, backwards: bool = False) -> Tensor:
    """What a loop of ``torch.optim`` gives; ``backwards`` turns each batch around, which is rounding alone."""
    setup = case.setup
    model = copy.deepcopy(setup.model)
    optimizer = setup.optimizer(model.parameters())
    x, y = setup.train
    found = []
    order = batch_rows(len(x), setup.batch_size, case.seed)
    for _ in range(steps):
        index = next(order)
        index = index.flip(0) if backwards else index
        optimizer.zero_grad()
        loss = setup.loss(model(x[index]), y[index])
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found, dtype=torch.float64)


def deadly_grid(killed: Path) -> Grid:
    """Eight runs, one of which kills its worker the first time and leaves ``killed`` behind."""

    def deadly(lr: float, seed: int = 0) -> Any:
        from tests.lab.trainings import perceptron

        if lr == 0.3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return perceptron(lr)

    return Grid(deadly, {"lr": [0.1, 0.2, 0.3, 0.4], "seed": [0, 1]}, looks=2, name="deadly")
