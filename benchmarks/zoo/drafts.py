"""A set-up in the making: plain fields that faults change before it is built."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.training import seeded

from . import networks
from .sources import Source, source

STEPS, BATCH = 200, 32
FAMILIES = {
    "table": ("mlp",),
    "image": ("mlp", "mlp", "mlp", "cnn", "cnn", "rnn", "lstm", "gru", "transformer"),
    "tokens": ("rnn", "lstm", "gru", "transformer", "bag", "bag"),
    "pairs": ("recommender",),
}
RECURRENT = ("rnn", "lstm", "gru", "transformer")
OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": F.cross_entropy,
    "binary": F.binary_cross_entropy_with_logits,
    "labels": F.binary_cross_entropy_with_logits,
    "real": F.mse_loss,
}


@dataclass
class Draft:
    """What a set-up will be made of; healthy by default."""

    source: Source
    family: str
    depth: int = 3
    width: int = 64
    activation: networks.Activation = nn.ReLU
    norm: str = ""
    dropout: float = 0.0
    head: Callable[[], nn.Module] | None = None
    outputs: int = 0
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    optimizer: str = "adam"
    lr: float = 1e-3
    settings: dict[str, Any] = field(default_factory=dict)
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    steps: int = STEPS
    batch: int = BATCH
    inputs: Callable[[Tensor], Tensor] | None = None
    target: Callable[[Tensor], Tensor] | None = None
    weights: list[Callable[[nn.Module], None]] = field(default_factory=list)
    wrap: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        self.outputs = self.outputs or self.source.outputs
        if self.loss is F.cross_entropy:
            self.loss = LOSSES[self.source.task]

    def build(self, seed: int) -> sg.TrainingSetup:
        """Return the set-up, its weights drawn from ``seed``."""
        with seeded(seed):
            model = self._network()
            if self.head is not None and isinstance(model, networks.Recommender):  # it takes two arguments
                model.body = nn.Sequential(model.body, self.head())
            elif self.head is not None:
                model = nn.Sequential(model, self.head())
            with torch.no_grad():
                for change in self.weights:
                    change(model)
        x = tuple(self.inputs(tensor) if self.inputs is not None else tensor for tensor in self.source.inputs)
        y = self.source.target if self.target is None else self.target(self.source.target)
        learned, held = self.source.rows()
        factory = partial(OPTIMIZERS[self.optimizer], lr=self.lr, **self.settings)
        return sg.TrainingSetup(
            model,
            self.loss,
            (*(tensor[learned] for tensor in x), y[learned]),
            factory if self.wrap is None else self.wrap(factory),
            (*(tensor[held] for tensor in x), y[held]),
            scheduler=self.scheduler,
            batch_size=self.batch,
            steps=self.steps,
        )

    def _network(self) -> nn.Module:
        shape = tuple(self.source.inputs[0].shape[1:])
        plain = (self.depth, self.width, self.activation, self.norm, self.dropout)
        tokens, outputs, side = self.source.size, self.outputs, shape[-1] if shape else 0
        if self.family == "mlp":
            return networks.mlp(shape, outputs, *plain)
        if self.family == "cnn":
            return networks.cnn(shape, outputs, *plain)
        if self.family == "transformer":
            return networks.Transformer(side, side, outputs, self.width, self.depth, tokens, self.dropout)
        if self.family == "bag":
            return networks.Bag(tokens, networks.mlp((16,), outputs, *plain))
        if self.family == "recommender":
            return networks.Recommender(tokens, networks.mlp((24,), outputs, *plain))
        return networks.Recurrent(self.family, side, outputs, self.width, self.depth, tokens)


def healthy(data: str, family: str, rng: random.Random) -> Draft:
    """Return a draft without faults, drawn from what people use."""
    found = source(data)
    deep = family in ("mlp", "cnn", "bag", "recommender")
    draft = Draft(
        found,
        family,
        depth=rng.choice((2, 3, 4) if deep and family != "cnn" else (3, 4) if family == "cnn" else (3,)),
        width=16 if family == "cnn" else 32 if family in RECURRENT else rng.choice((32, 48, 64)),
        activation=rng.choice((nn.ReLU, nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU)),
        norm=rng.choice(("", "", "", "batch", "layer")) if deep else "",
        dropout=rng.choice((0.0, 0.0, 0.1)) if deep else 0.0,
    )
    adam = (("adam", 1e-3, {}), ("adam", 3e-3, {}), ("adamw", 2e-3, {}), ("rmsprop", 1e-3, {}))
    sgd = (("sgd", 0.05, {"momentum": 0.9}), ("sgd", 0.02, {"momentum": 0.9}), ("sgd", 0.2, {}))
    slow = family in (*RECURRENT, "recommender") or data.startswith("copied")
    draft.optimizer, draft.lr, settings = rng.choice(adam if slow else adam + sgd)
    if slow:
        draft.lr = 1e-2 if family == "recommender" else 5e-3 if family in RECURRENT else 3e-3
    draft.settings = dict(settings)
    if found.task == "binary" and rng.random() < 0.4:  # probabilities, as many programs have it
        draft.head, draft.loss = nn.Sigmoid, F.binary_cross_entropy
    if found.task == "classes" and rng.random() < 0.3:
        draft.head, draft.loss = partial(nn.LogSoftmax, dim=1), F.nll_loss
    return draft


def reference(data: str, family: str) -> Draft:
    """Return the named healthy network that a set-up is held against, on the same data."""
    found = source(data)
    if family in RECURRENT:
        return Draft(found, "gru", 3, 32, lr=1e-2)
    if family == "cnn":
        return Draft(found, "cnn", 4, 16, lr=3e-3)
    if family in ("bag", "recommender"):
        return Draft(found, family, 3, 64, lr=1e-2)
    draft = Draft(found, "mlp", 3, 64, weights=[_he])
    if found.form == "image":
        mean, std = found.inputs[0].mean(0), found.inputs[0].std(0).clamp_min(1e-2)
        draft.inputs = lambda x: (x - mean) / std
    return draft


def _he(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
