"""The small networks and data that the experiments share, and what is measured on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.training import Training, TrainingSetup, WithLearningRate, evaluate, seeded
from steadygrad.training.datasets import Dataset, load
from steadygrad.training.setup import Data

WIDTH, BATCH = 32, 128
STEPS, QUICK_STEPS = 150, 8
RATES = (0.01, 0.1, 1.0)
LEAST_LOG = -300.0  # stands for the logarithm of 0, which JSON does not have

Fill = Callable[[Tensor], object]
"""Draws a weight matrix in place."""


@cache
def digits() -> Dataset:
    """Return scikit-learn's handwritten digits: 64 features, 10 classes."""
    return load("digits")


def normal(std: float) -> Fill:
    """Return a draw from N(0, std²)."""
    return partial(nn.init.normal_, std=std)


def stack(
    kind: type[nn.Module], depth: int, seed: int, fill: Fill | None = None, width: int = WIDTH, inputs: int = 64
) -> nn.Sequential:
    """Return ``depth`` weight layers with activations of one kind between them.

    Args:
        kind: Class of the activation.
        depth: Number of weight layers.
        seed: Where the weights come from.
        fill: Draws every weight matrix, biases are zero then; None is PyTorch's own initialization.
        width: Units of a hidden layer.
        inputs: Features of the data.
    """
    with seeded(seed):
        layers: list[nn.Module] = []
        for place in range(depth - 1):
            layers += [nn.Linear(width if place else inputs, width), kind()]
        model = nn.Sequential(*layers, nn.Linear(width, 10))
        if fill is not None:
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    fill(parameter)
                else:
                    nn.init.zeros_(parameter)
    return model


def on_digits(model: nn.Module, lr: float = 0.1) -> TrainingSetup:
    """Return the set-up that trains ``model`` on digits by plain gradient descent."""
    data = digits()
    return TrainingSetup(
        model,
        F.cross_entropy,
        data.train,
        optimizer=partial(torch.optim.SGD, lr=lr),
        validation=data.test,
        batch_size=BATCH,
        steps=STEPS,
    )


def train(setup: TrainingSetup, seed: int, quick: bool, steps: int = STEPS) -> Training:
    """Return a finished training; the quick form makes a few steps only."""
    training = Training(setup, seed)
    training.advance(QUICK_STEPS if quick else steps)
    return training


def accuracy(training: Training, data: Data | None = None) -> float:
    """Return the share of right answers, on held-out data by default; 0 if they, or the loss, are not finite."""
    if training.diverged:
        return 0.0
    return max(0.0, evaluate(training.setup, training.model, data or training.setup.validation)[1])


def best_training(setup: TrainingSetup, seed: int, quick: bool, steps: int = STEPS) -> Training:
    """Return the training at the learning rate of ``RATES`` that is most often right on 500 training samples."""
    factory = setup.optimizer
    assert factory is not None
    seen = tuple(part[:500] for part in setup.train)
    setups = [setup.replace(optimizer=WithLearningRate(factory, lr)) for lr in (RATES[1:2] if quick else RATES)]
    return max((train(each, seed, quick, steps) for each in setups), key=partial(accuracy, data=seen))


def gradient_growth(model: nn.Sequential, rows: int = BATCH, dtype: torch.dtype = torch.float64) -> float:
    """Return log10 of the RMS of the loss gradient at the first hidden weight layer's output over that at the last's.

    Below 0 gradients shrink on their way to the input, above 0 they grow. ``model`` is copied.
    """
    model = copy.deepcopy(model).to(dtype)
    x, y = digits().train
    seen = []
    signal = x[:rows].to(dtype)
    for module in model:
        signal = module(signal)
        if isinstance(module, nn.Linear):
            signal.retain_grad()
            seen.append(signal)
    F.cross_entropy(signal, y[:rows]).backward()
    first, last = seen[0].grad, seen[-2].grad
    assert first is not None
    assert last is not None
    return log10(rms(first)) - log10(rms(last))


def signal_growth(model: nn.Sequential, rows: int = BATCH) -> float:
    """Return log10 of the RMS of the last hidden activation over that of the first."""
    signal, sizes = digits().train[0][:rows].double(), []
    with torch.no_grad():
        for module in copy.deepcopy(model).double()[:-1]:
            signal = module(signal)
            if not isinstance(module, nn.Linear):
                sizes.append(rms(signal))
    return log10(sizes[-1]) - log10(sizes[0])


def rms(x: Tensor) -> float:
    """Return the root mean square."""
    return float(x.square().mean().sqrt())


def log10(number: float) -> float:
    """Return the decimal logarithm, within what a file of numbers can hold."""
    if math.isnan(number):
        return -LEAST_LOG
    return max(LEAST_LOG, min(-LEAST_LOG, math.log10(number))) if number > 0 else LEAST_LOG
