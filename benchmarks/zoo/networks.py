"""The networks of the zoo, by family: each follows from a few numbers, and takes its faults from outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class Step(nn.Module):
    """A step function: its slope is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


def _hidden(inputs: int, width: int, depth: int, activation: Activation, norm: str, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for position in range(depth - 1):
        layers.append(nn.Linear(width if position else inputs, width))
        if norm:
            layers.append(nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width))
        layers.append(activation())
        if dropout:
            layers.append(nn.Dropout(dropout))
    return layers


def mlp(
    shape: tuple[int, ...], outputs: int, depth: int, width: int, activation: Activation, norm: str, dropout: float
) -> nn.Module:
    inputs = math.prod(shape)
    hidden = _hidden(inputs, width, depth, activation, norm, dropout)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width if depth > 1 else inputs, outputs))


def cnn(
    shape: tuple[int, ...], outputs: int, depth: int, width: int, activation: Activation, norm: str, dropout: float
) -> nn.Module:
    layers: list[nn.Module] = []
    for position in range(depth - 1):
        layers.append(nn.Conv2d(width if position else shape[0], width, 3, stride=2 if position < 2 else 1, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width))
        layers.append(activation())
    if dropout:
        layers.append(nn.Dropout(dropout))
    side = math.ceil(math.ceil(shape[1] / 2) / (2 if depth > 2 else 1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, outputs))


class Recurrent(nn.Module):
    """A recurrent layer over the rows of an image or over tokens, and a head on its last state."""

    def __init__(self, kind: str, inputs: int, outputs: int, width: int, depth: int, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 16) if tokens else None
        cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.cell = cell(16 if tokens else inputs, width, max(1, depth - 2), batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) if self.embedding is not None else x.squeeze(1)
        return self.head(self.cell(x)[0][:, -1])


class Transformer(nn.Module):
    """Encoder layers over rows or tokens, their mean read by a head."""

    def __init__(
        self, inputs: int, length: int, outputs: int, width: int, depth: int, tokens: int, dropout: float
    ) -> None:
        super().__init__()
        self.entry = nn.Embedding(tokens, width) if tokens else nn.Linear(inputs, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, max(1, depth - 2), enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1) if x.dim() == 4 else x
        return self.head(self.layers(self.entry(x) + self.place).mean(1))


class Bag(nn.Module):
    """The mean of embedded tokens, read by an MLP."""

    def __init__(self, tokens: int, body: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 16)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.embedding(x).mean(1))


class Recommender(nn.Module):
    """A user's and an item's embedding, side by side and multiplied, read by an MLP."""

    def __init__(self, size: int, body: nn.Module) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(size, 8), nn.Embedding(size, 8)
        self.body = body

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u, i = self.users(user), self.items(item)
        return self.body(torch.cat([u, i, u * i], -1))
