"""The seed article's grid: five optimizers, learning rates, batch sizes and weight decays on a small perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.lab.grid import Grid
from steadygrad.lab.result import Value
from steadygrad.lab.update import KINDS
from steadygrad.training import Data, TrainingSetup
from steadygrad.training.datasets import load

__all__ = ["mlp", "mnist_grid"]

OPTIMIZERS = {kind.__name__: kind for kind in KINDS}
HELD_OUT = {"mnist": 10_000, "fashion-mnist": 10_000, "digits": 287}  # last rows of the training part, for validation
VERSION = "1"  # of what mlp makes of its arguments; part of the key that results are stored under


def mlp(
    data: str = "mnist",
    train: int = 5000,
    widths: str = "128-64",
    optimizer: str = "SGD",
    lr: float = 0.01,
    batch: int = 100,
    decay: float = 0.0,
    epochs: int = 50,
    seed: int = 0,
    device: str | None = None,
) -> tuple[TrainingSetup, Data]:
    """Return a ReLU perceptron in torch's own initialization with its data, and the data's test part.

    Validation data are the last 10,000 rows of the data set's training part (digits: 287), training data ``train`` rows
    drawn from the others by ``seed``.

    Args:
        data: ``mnist``, ``fashion-mnist`` or ``digits``.
        train: Training rows.
        widths: Hidden units of each layer, joined by ``-``; empty for none.
        optimizer: ``SGD``, ``RMSprop``, ``Adagrad``, ``Adadelta`` or ``Adam``, with torch's defaults for the rest.
        lr: Learning rate.
        batch: Batch size.
        decay: Weight decay, as an L2 penalty in the gradient.
        epochs: Passes over the training data.
        seed: Seed of the choice of training rows.
        device: Where to train, by default in the processor's memory; others are untested.

    Raises:
        UsageError: If there is no such data set or optimizer, not so many rows, or a width is not a whole number.
        DataFileError: If the data are not there and cannot be downloaded.
    """
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"mlp: expected an optimizer out of {', '.join(OPTIMIZERS)}, got {optimizer!r}.")
    (x, y), validation, test = _parts(data)
    if not batch <= train <= len(x):
        raise UsageError(
            f"mlp: expected training rows between the batch size, {batch}, and those of {data}, {len(x)}, got {train}."
        )
    model = _perceptron(x.shape[1], widths, int(y.max()) + 1)
    kind = OPTIMIZERS[optimizer]
    setup = TrainingSetup(
        model,
        F.cross_entropy,
        _drawn(data, train, seed),
        optimizer=lambda parameters: kind(parameters, lr=lr, weight_decay=decay),
        validation=validation,
        batch_size=batch,
        steps=epochs * (train // batch),
        device=device,
        seed=seed,
    )
    return setup, test


def mnist_grid(
    data: str = "mnist",
    train: int = 5000,
    widths: str = "128-64",
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
    lrs: Sequence[float] = (0.001, 0.01, 0.1),
    batches: Sequence[int] = (10, 100, 1000),
    decays: Sequence[float] = (0.001, 0.01, 0.1),
    epochs: int = 50,
    validations: int = 10,
    seeds: Sequence[int] = (0,),
    device: str | None = None,
) -> Grid:
    """Return the grid; by default the article's 135 runs, as they stand in its text.

    Args:
        data: See :func:`mlp`, as for ``train``, ``widths`` and ``epochs``.
        train: Training rows.
        widths: Hidden units; the article gives none.
        optimizers: Names.
        lrs: Learning rates.
        batches: Batch sizes.
        decays: Weight decays.
        epochs: Passes.
        validations: Looks at the validation data an epoch; at most one a step.
        seeds: One grid each.
        device: Where to train; see :func:`mlp`.
    """
    place: dict[str, Sequence[Value]] = {"device": [device]} if device else {}
    axes: dict[str, Sequence[Value]] = {
        **place,
        "data": [data],
        "train": [train],
        "widths": [widths],
        "epochs": [epochs],
        "seed": list(seeds),
        "batch": list(batches),
        "optimizer": list(optimizers),
        "lr": list(lrs),
        "decay": list(decays),
    }
    return Grid(mlp, axes, looks=epochs * validations, name=f"steadygrad.lab.mlp {VERSION}")


@lru_cache(maxsize=2)
def _parts(data: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return training, validation and test data."""
    whole = load(data, progress=False)
    x, y = whole.train
    held = len(x) - HELD_OUT[data]
    return (x[:held], y[:held]), (x[held:], y[held:]), whole.test


@lru_cache(maxsize=4)  # so that runs of one seed share their data
def _drawn(data: str, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    x, y = _parts(data)[0]
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:rows]
    return x[chosen], y[chosen]


def _perceptron(features: int, widths: str, classes: int) -> nn.Sequential:
    try:
        hidden = [int(width) for width in widths.split("-") if widths]
    except ValueError:
        hidden = [0]
    if not all(width > 0 for width in hidden):
        raise UsageError(f"mlp: expected widths such as 128-64, got {widths!r}.")
    sizes = [features, *hidden, classes]
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
