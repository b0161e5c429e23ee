"""Small networks that learn nothing as they come, each named after what it suffers from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.remedies import make
from steadygrad.training import TrainingSetup, seeded
from steadygrad.training.datasets import load

STEPS = 150
WIDTH, BATCH, CLASSES = 32, 128, 10

digits = cache(partial(load, "digits"))


def plain(
    kind: type[nn.Module], depth: int, seed: int, std: float | None = None, lr: float = 0.1, width: int = WIDTH
) -> TrainingSetup:
    """A plain network on digits with PyTorch's own initialization, or Gaussian weights of deviation ``std``."""
    data = digits()
    layers: list[nn.Module] = []
    with seeded(seed):
        for place in range(depth - 1):
            layers += [nn.Linear(width if place else 64, width), kind()]
        model = nn.Sequential(*layers, nn.Linear(width, CLASSES))
        for parameter in model.parameters():
            if std is not None and parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)
    optimizer = partial(torch.optim.SGD, lr=lr)
    return TrainingSetup(
        model, F.cross_entropy, data.train, optimizer=optimizer, validation=data.test, batch_size=BATCH, steps=STEPS
    )


def hidden(setup: TrainingSetup) -> list[nn.Linear]:
    return [module for module in setup.model if isinstance(module, nn.Linear)][:-1]


def large_inputs(seed: int, kind: type[nn.Module] = nn.ReLU, depth: int = 4) -> TrainingSetup:
    setup = plain(kind, depth, seed)
    return setup.replace(
        train=(setup.train[0] * 1e3, setup.train[1]), validation=(setup.validation[0] * 1e3, setup.validation[1])
    )


def large_targets(seed: int) -> TrainingSetup:
    setup = plain(nn.Tanh, 3, seed)
    with seeded(seed):
        setup.model[-1] = nn.Linear(WIDTH, 1)
    train, validation = ((x, 1e3 * x[:, 20:30].sum(1, keepdim=True) + 5e3) for x, _ in (setup.train, setup.validation))
    return setup.replace(loss=F.mse_loss, train=train, validation=validation)


def he_with_adam(seed: int) -> TrainingSetup:
    setup = plain(nn.ReLU, 12, seed)
    with seeded(seed):
        setup = make("initialization", method="he")(setup)
    return setup.replace(optimizer=partial(torch.optim.Adam, lr=0.03))


def with_biases(kind: type[nn.Module], depth: int, bias: float, seed: int) -> TrainingSetup:
    setup = plain(kind, depth, seed)
    for layer in hidden(setup):
        nn.init.constant_(layer.bias, bias)
    return setup


def narrow(seed: int) -> TrainingSetup:
    setup = plain(nn.ReLU, 12, seed, width=4)
    with seeded(seed):
        return make("initialization", method="he")(setup)


def frozen(seed: int) -> TrainingSetup:
    setup = plain(nn.ReLU, 3, seed)
    for parameter in list(setup.model.parameters())[:-1]:
        parameter.requires_grad_(False)
    return setup


def double_softmax(seed: int) -> TrainingSetup:
    setup = plain(nn.Tanh, 4, seed)
    return setup.replace(model=nn.Sequential(*setup.model, nn.Softmax(dim=1)))


def nearly_all_dropped(seed: int) -> TrainingSetup:
    setup = plain(nn.ReLU, 3, seed)
    parts = [part for module in setup.model for part in (module, nn.Dropout(0.98))]
    return setup.replace(model=nn.Sequential(*parts[:-1]))


def linear_on_rings(seed: int) -> TrainingSetup:
    """Points of the plane, to be told apart by their distance from 0, and no activation."""
    setup = plain(nn.Identity, 3, seed)
    with seeded(seed):
        x = torch.randn(2000, 2)
        model = nn.Sequential(nn.Linear(2, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES))
    y = x.norm(dim=1).argsort().argsort() * CLASSES // len(x)
    return setup.replace(model=model, train=(x[:1500], y[:1500]), validation=(x[1500:], y[1500:]))


def rows_of_nan(seed: int) -> TrainingSetup:
    setup = plain(nn.ReLU, 3, seed)
    x = setup.train[0].clone()
    x[::50, 3] = torch.nan
    return setup.replace(train=(x, setup.train[1]))


def sometimes_nan(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy; for one batch in ten its gradient is NaN, because the square root has none at 0."""
    loss = F.cross_entropy(output, target)
    return loss + (output - output.detach()).abs().sqrt().sum() if target[0] == 3 else loss


class Spiking:
    """Cross-entropy that is ten thousand times as large at every twentieth call after the eightieth."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += torch.is_grad_enabled()
        return F.cross_entropy(output, target) * (1e4 if self.calls > 80 and self.calls % 20 == 0 else 1.0)


# Of several symptoms before the colon all are shown.
PATIENTS: dict[str, Callable[[int], TrainingSetup]] = {
    "vanishing: 8 sigmoid layers": partial(plain, nn.Sigmoid, 8),
    "vanishing: 20 sigmoid layers": partial(plain, nn.Sigmoid, 20),
    "vanishing, initialization: 8 ReLU layers of N(0, 0.01^2)": partial(plain, nn.ReLU, 8, std=0.01),
    "vanishing, initialization: 8 tanh layers of N(0, 0.01^2)": partial(plain, nn.Tanh, 8, std=0.01),
    "exploding: 6 ReLU layers of N(0, 1)": partial(plain, nn.ReLU, 6, std=1.0),
    "exploding, data: inputs of 1000": large_inputs,
    "exploding, data: targets of 5000": large_targets,
    "learning rate: 5 tanh layers at 3": partial(plain, nn.Tanh, 5, lr=3.0),
    "learning rate: spikes": lambda seed: plain(nn.Tanh, 3, seed, lr=0.2).replace(loss=Spiking()),
    "learning rate: batches of 1": lambda seed: plain(nn.Tanh, 3, seed, lr=1.0).replace(batch_size=1),
    "learning rate: 5 steps": lambda seed: plain(nn.ReLU, 3, seed).replace(steps=5),
    "saturation: inputs of 1000 into 6 tanh layers": partial(large_inputs, kind=nn.Tanh, depth=6),
    "saturation: 6 tanh layers of N(0, 3^2)": partial(plain, nn.Tanh, 6, std=3.0),
    "saturation: 3 tanh layers with biases of 3": partial(with_biases, nn.Tanh, 3, 3.0),
    "dead units: 4 ReLU layers with biases of -0.5": partial(with_biases, nn.ReLU, 4, -0.5),
    "dead units: 12 ReLU layers of 4 units": narrow,
    "disconnected: frozen weights": frozen,
    "wiring: cross-entropy on probabilities": double_softmax,
    "wiring: nll_loss on logits": lambda seed: plain(nn.ReLU, 3, seed).replace(loss=F.nll_loss),
    "wiring: 98 % dropped": nearly_all_dropped,
    "wiring: linear layers on rings": linear_on_rings,
    "non-finite, data: rows of NaN": rows_of_nan,
    "non-finite: gradients of NaN": lambda seed: plain(nn.ReLU, 3, seed).replace(loss=sometimes_nan),
}
