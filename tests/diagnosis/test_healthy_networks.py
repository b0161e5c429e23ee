"""Networks that train well raise no warning, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.diagnosis import diagnose
from steadygrad.training import TrainingSetup

from .networks import BATCH, CLASSES, Residual, Towers, drawn, inputs, labels, plain, regression, setup

adam = partial(torch.optim.Adam, lr=1e-3)


class Lambda(nn.Module):
    """Layers by name and a forward pass over them."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], object], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def images(model: nn.Module) -> TrainingSetup:
    coarse = inputs(BATCH, 1, 2, 2)  # white noise would average out in a pooling layer, as no image does
    return setup(model, F.interpolate(coarse, (8, 8), mode="bilinear"), optimizer=adam)


def convolutions(width: int = 16) -> nn.Sequential:
    parts: list[nn.Module] = []
    for index in range(6):
        parts += [nn.Conv2d(width if index else 1, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES))


class ResidualBlock(nn.Module):
    """The basic block of a ResNet; its last scale may start at 0 (Goyal et al. 2017)."""

    def __init__(self, into: int, width: int, zero: bool) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Conv2d(into, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.two, self.norm_two = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(into, width, 1) if into != width else nn.Identity()
        if zero:
            nn.init.zeros_(self.norm_two.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm_two(self.two(F.relu(self.norm_one(self.one(x)))))
        return F.relu(branch + self.shortcut(x), inplace=True)


def resnet(zero: bool = False) -> nn.Sequential:
    blocks = [ResidualBlock(a, b, zero) for a, b in [(8, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]]
    stem = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def transformer(pre: bool) -> TrainingSetup:
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=pre)
    model = Lambda(
        lambda m, x: m.head(m.encoder(m.embed(x)).mean(1)),
        embed=nn.Embedding(20, 32),
        encoder=nn.TransformerEncoder(layer, 6, enable_nested_tensor=False),
        head=nn.Linear(32, CLASSES),
    )
    return setup(model, torch.randint(20, (BATCH, 12), generator=torch.Generator().manual_seed(0)), optimizer=adam)


class Attention(nn.Module):
    """Pre-norm self-attention written by hand, its projections drawn as in GPT-2."""

    def __init__(self, layers: int = 6, size: int = 32) -> None:
        super().__init__()
        self.embed, self.size = nn.Embedding(20, size), size
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(layers))
        self.projections = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(size, size) for name in "qkvo"}) for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for norm, part in zip(self.norms, self.projections, strict=True):
            y = norm(x)
            weights = F.softmax(part["q"](y) @ part["k"](y).mT / self.size**0.5, dim=-1)
            x = x + part["o"](weights @ part["v"](y))
        return self.head(self.norm(x).mean(1))


def recurrent(kind: type[nn.RNNBase]) -> TrainingSetup:
    model = Lambda(lambda m, x: m.head(m.cell(x)[0][:, -1]), cell=kind(8, 32, batch_first=True), head=nn.Linear(32, 4))
    return setup(model, inputs(BATCH, 10, 8), optimizer=adam)


def cells() -> TrainingSetup:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = m.cell(step, state)
        return m.head(state[0])

    model = Lambda(run, cell=nn.LSTMCell(8, 32), head=nn.Linear(32, CLASSES))
    return setup(model, inputs(BATCH, 6, 8), optimizer=adam)


def autoencoder() -> TrainingSetup:
    sizes = [16, 32, 8, 32]
    parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return regression(drawn(nn.Sequential(*parts, nn.Linear(32, 16))), y=inputs())


def recommender(bag: bool) -> TrainingSetup:
    users = (nn.EmbeddingBag if bag else nn.Embedding)(50, 16, sparse=True)
    tower = drawn(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)))
    model = Lambda(lambda m, x: m.tower(m.users(x)).squeeze(-1), users=users, tower=tower)
    ids = torch.randint(50, (BATCH, 3) if bag else (BATCH,), generator=torch.Generator().manual_seed(0))
    return setup(model, ids, (labels() > 1).float(), F.binary_cross_entropy_with_logits, optimizer=sparse_sgd)


def sparse_sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


def zeroed(model: nn.Module, *layers: str) -> nn.Module:
    for layer in layers:
        nn.init.zeros_(model.get_submodule(layer).weight)
    return model


def two_heads() -> TrainingSetup:
    model = drawn(
        Lambda(lambda m, x: (m.classes(h := F.relu(m.body(x))), m.value(h).squeeze(-1)), body=nn.Linear(16, 32),
               classes=nn.Linear(32, CLASSES), value=nn.Linear(32, 1))
    )  # fmt: skip
    return setup(model, loss=lambda output, y: F.cross_entropy(output[0], y) + F.mse_loss(output[1], y.float()))


def own_loss() -> TrainingSetup:
    model = plain(4)
    return TrainingSetup(
        model, None, (inputs(), labels()), adam, forward=lambda m, batch: F.cross_entropy(m(batch[0]), batch[1])
    )


class Norm2d(nn.Module):
    """A hand-written layer normalization with scales of two dimensions, all 1."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.layer_norm(x, x.shape[1:])


HEALTHY: dict[str, Callable[[], TrainingSetup]] = {
    "one layer": lambda: setup(plain(1)),
    "two layers": lambda: setup(plain(2)),
    "relu 30": lambda: setup(plain(30)),
    "tanh 20": lambda: setup(plain(20, nn.Tanh, 5 / 3)),
    "gelu 10": lambda: setup(plain(10, nn.GELU, 1.5)),
    "torch's own initialization": lambda: setup(
        nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    ),
    "residual": lambda: setup(Residual()),
    "100 residual blocks": lambda: setup(Residual(100)),
    "residual branches that start at 0": lambda: setup(zeroed(Residual(), *(f"blocks.{i}.2" for i in range(8)))),
    "a head that starts at 0": lambda: setup(zeroed(plain(6), "10")),
    "two towers": lambda: setup(Towers()),
    "convolutions": lambda: images(drawn(convolutions())),
    "resnet": lambda: images(resnet()),
    "resnet whose branches start at 0": lambda: images(resnet(zero=True)),
    "own normalization": lambda: images(
        nn.Sequential(nn.Conv2d(1, 16, 3), Norm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, CLASSES))
    ),
    "post-norm transformer": lambda: transformer(pre=False),
    "pre-norm transformer": lambda: transformer(pre=True),
    "attention by hand": lambda: setup(Attention(), torch.randint(20, (BATCH, 12)), optimizer=adam),
    "rnn": lambda: recurrent(nn.RNN),
    "lstm": lambda: recurrent(nn.LSTM),
    "gru": lambda: recurrent(nn.GRU),
    "lstm cells": cells,
    "autoencoder": autoencoder,
    "embedding with sparse gradients": lambda: recommender(bag=False),
    "embedding bag with sparse gradients": lambda: recommender(bag=True),
    "a tuple of two outputs": two_heads,
    "one number a sample": lambda: regression(nn.Sequential(plain(3, outputs=1), nn.Flatten(0)), y=inputs(BATCH)),
    "forward returns the loss": own_loss,
    "no optimizer": lambda: setup(plain(5), optimizer=None),
    "frozen layers": lambda: setup(nn.Sequential(plain(4).requires_grad_(False), nn.ReLU(), nn.Linear(CLASSES, 4))),
    "half precision": lambda: setup(plain(5).to(torch.bfloat16), inputs().to(torch.bfloat16)),
    "batch of one": lambda: setup(plain(8), inputs(1, 16), labels(1)),
}


@pytest.mark.parametrize("make", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_network_raises_no_warning(make: Callable[[], TrainingSetup]) -> None:
    torch.manual_seed(0)
    diagnosis = diagnose(make())
    assert [f"{finding.code}: {finding.message}" for finding in diagnosis.findings] == []
    assert diagnosis.healthy
    assert diagnosis.guilty is None
    assert diagnosis.confidence is None
