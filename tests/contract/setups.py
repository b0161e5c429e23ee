"""Set-ups of every kind that a remedy may meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.training import TrainingSetup, seeded


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3)


def classes(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    body = [
        nn.Linear(6, 6),
        nn.Sigmoid(),
        nn.Dropout(0.1),
        nn.Linear(6, 6),
        nn.Sigmoid(),
        nn.Linear(6, 6),
        nn.Sigmoid(),
    ]
    return _setup(nn.Sequential(*body, nn.Linear(6, 3)), (40, 6), F.cross_entropy, torch.arange(40) % 3, dtype)


def images(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    blocks = [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 3))
    return _setup(model, (40, 2, 4, 4), F.cross_entropy, torch.arange(40) % 3, dtype)


def linear(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    return _setup(
        nn.Sequential(*(nn.Linear(6, 6) for _ in range(3))), (40, 6), F.cross_entropy, torch.arange(40) % 3, dtype
    )


def half_frozen(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    setup = classes(dtype)
    setup.model.get_submodule("0").requires_grad_(False)
    return setup


def incomplete(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    setup = classes(dtype)
    setup.train[0][3, 1] = torch.nan
    return setup


def softmax(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    setup = classes(dtype)
    return setup.replace(model=nn.Sequential(setup.model, nn.Softmax(dim=1)))


def reals(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    target = torch.linspace(-3, 9, 40).view(-1, 1).to(dtype)
    return _setup(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)), (40, 6), F.mse_loss, target, dtype)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.elu(self.second(F.relu(self.first(x)))))


def functions(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    return _setup(nn.Sequential(Functional()), (40, 6), F.cross_entropy, torch.arange(40) % 3, dtype)


def sequences(dtype: torch.dtype = torch.float32) -> TrainingSetup:
    return _setup(nn.Sequential(Reader()), (40, 5, 4), F.cross_entropy, torch.arange(40) % 3, dtype)


def _setup(model: nn.Module, shape: tuple[int, ...], loss: Callable, target: torch.Tensor, dtype: torch.dtype):
    with seeded(0):
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        x = torch.randn(shape).to(dtype)
    return TrainingSetup(model.to(dtype), loss, (x, target), optimizer=sgd, batch_size=20)
