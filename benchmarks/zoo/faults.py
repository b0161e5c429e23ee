"""The faults of the zoo, from the published symptom families; each says what it fits and changes a draft.

Families follow AUTOTRAINER (ICSE 2021), DeepFD (ICSE 2022), DeepLocalize, UMLAUT and Humbatova et al. (ICSE
2020): data, architecture, activation, initialization, optimizer, loss, head.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim.lr_scheduler import ExponentialLR

from steadygrad.remedies import clip_by_global_norm
from steadygrad.remedies.with_transforms import with_transforms

from .drafts import Draft
from .networks import Step

STACKED = ("mlp", "cnn", "bag", "recommender")


@dataclass(frozen=True)
class Fault:
    """One way to be sick.

    Attributes:
        name: A few words.
        symptom: The published family it belongs to.
        fits: Whether a draft can have it.
        change: Makes it so.
        held_out: Whether it occurs only in the split that nothing is tuned on.
    """

    name: str
    symptom: str
    fits: Callable[[Draft], bool]
    change: Callable[[Draft, random.Random], None]
    held_out: bool = False


def _set(**fields: Any) -> Callable[[Draft, random.Random], None]:
    def change(draft: Draft, rng: random.Random) -> None:
        for name, value in fields.items():
            setattr(draft, name, rng.choice(value) if isinstance(value, tuple) else value)

    return change


def _floating(draft: Draft) -> bool:
    return draft.source.form in ("table", "image")


def _stacked(draft: Draft) -> bool:
    return draft.family in STACKED


def _any(draft: Draft) -> bool:
    return True


def _task(*tasks: str) -> Callable[[Draft], bool]:
    return lambda draft: draft.source.task in tasks


def _raw_inputs(draft: Draft, rng: random.Random) -> None:
    scale, shift = draft.source.scale, draft.source.shift
    if draft.source.name == "moons":
        scale, shift = torch.tensor(100.0), torch.tensor(50.0)
    draft.inputs = lambda x: x * scale + shift


def _scaled(factor: float, shift: float = 0.0) -> Callable[[Draft, random.Random], None]:
    def change(draft: Draft, rng: random.Random) -> None:
        draft.inputs = lambda x: x * factor + shift

    return change


def _huge_feature(x: Tensor) -> Tensor:
    x = x.clone()
    x.flatten(1)[:, 0] *= 1e4
    return x


def _raw_targets(draft: Draft, rng: random.Random) -> None:
    scale, shift = rng.choice(((1e5, 2e5), (50.0, 200.0), (1e3, 0.0), (10.0, 60.0)))
    draft.target = lambda y: y * scale + shift


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.dim() > 1]


def _multiplied(factor: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for parameter in _matrices(model):
            parameter.mul_(factor)

    return change


def _normal(std: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for parameter in _matrices(model):
            nn.init.normal_(parameter, 0.0, std)

    return change


def _constant(value: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, (nn.Linear, _ConvNd)):
                nn.init.constant_(module.weight, value)
                nn.init.zeros_(module.bias)

    return change


def _hidden_bias(value: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for module in [m for m in model.modules() if isinstance(m, (nn.Linear, _ConvNd))][:-1]:
            nn.init.constant_(module.bias, value)

    return change


def _one_layer(factor: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, _ConvNd))]
        layers[len(layers) // 2].weight.mul_(factor)

    return change


def _state_weights(factor: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if "weight_hh" in name:
                parameter.mul_(factor)

    return change


def _weights(*changes: Callable[[nn.Module], None]) -> Callable[[Draft, random.Random], None]:
    return lambda draft, rng: draft.weights.append(rng.choice(changes))


def _frozen(model: nn.Module) -> None:
    for parameter in list(model.parameters())[:-1]:
        parameter.requires_grad_(False)


def _deep(activation: Callable[[], nn.Module], *depths: int) -> Callable[[Draft, random.Random], None]:
    def change(draft: Draft, rng: random.Random) -> None:
        draft.depth, draft.activation, draft.norm = rng.choice(depths), activation, ""
        if draft.family == "cnn":
            draft.depth = min(draft.depth, 12)
        draft.width = min(draft.width, 32)

    return change


def _rate(factor: float, adam: float) -> Callable[[Draft, random.Random], None]:
    def change(draft: Draft, rng: random.Random) -> None:
        draft.lr = draft.lr * factor if draft.optimizer == "sgd" else adam

    return change


def _sgd(lr: float, **settings: Any) -> Callable[[Draft, random.Random], None]:
    return _set(optimizer="sgd", lr=lr, settings=settings)


def _decay(draft: Draft, rng: random.Random) -> None:
    draft.settings = {**draft.settings, "weight_decay": 0.5 if draft.optimizer in ("sgd", "adam") else 50.0}


def _tiny_clip(draft: Draft, rng: random.Random) -> None:
    draft.optimizer, draft.lr, draft.settings = "sgd", 0.05, {}
    draft.wrap = lambda factory: with_transforms(factory, (partial(clip_by_global_norm, max_norm=1e-3),))


def _wrapped(change: Callable[[Tensor], Tensor]) -> Callable[[Draft, random.Random], None]:
    def made(draft: Draft, rng: random.Random) -> None:
        inner = draft.loss
        draft.loss = lambda output, target: change(inner(output, target))

    return made


def _summed(draft: Draft, rng: random.Random) -> None:
    inner = {"classes": F.cross_entropy, "real": F.mse_loss}.get(draft.source.task, F.binary_cross_entropy_with_logits)
    draft.head, draft.loss = None, lambda output, target: 10 * inner(output, target, reduction="sum")
    draft.optimizer, draft.lr, draft.settings = "sgd", 0.02, {"momentum": 0.9}


def _two_sided(head: Callable[[], nn.Module], loss: Any) -> Callable[[Draft, random.Random], None]:
    return lambda draft, rng: (setattr(draft, "head", head), setattr(draft, "loss", loss))[0]


def _one_hot(draft: Draft, rng: random.Random) -> None:
    classes = draft.outputs
    draft.target = lambda y: F.one_hot(y, classes).float()
    draft.head, draft.loss = partial(nn.Softmax, dim=1), F.mse_loss
    draft.optimizer, draft.lr, draft.settings = "sgd", 0.01, {}


def _flat_targets(draft: Draft, rng: random.Random) -> None:
    draft.target = lambda y: y.reshape(-1)


_softmax = partial(nn.Softmax, dim=1)
_many = _task("classes")

FAULTS = (
    Fault("raw inputs", "data", _floating, _raw_inputs),
    Fault("tiny inputs", "data", _floating, _scaled(1e-4)),
    Fault("shifted inputs", "data", _floating, _scaled(1.0, 50.0), held_out=True),
    Fault("one huge feature", "data", _floating, _set(inputs=_huge_feature), held_out=True),
    Fault("raw targets", "data", _task("real"), _raw_targets),
    Fault("batches of 2", "data", lambda d: d.norm != "batch", _set(batch=2)),
    Fault("too few steps", "data", _any, _set(steps=(8, 15, 30), batch=(64, 256))),
    Fault("deep plain ReLU", "architecture", _stacked, _deep(nn.ReLU, 16, 24)),
    Fault("deep plain tanh", "architecture", _stacked, _deep(nn.Tanh, 16, 24), held_out=True),
    Fault(
        "no hidden activation",
        "architecture",
        lambda d: (
            _stacked(d) and d.source.name in ("moons", "friedman", "housing", "tags", "rank-2 ratings", "ratings")
        ),
        _set(activation=nn.Identity),
    ),
    Fault("dropout of nearly all", "architecture", _stacked, _set(dropout=(0.9, 0.97))),
    Fault("deep sigmoid", "activation", _stacked, _deep(nn.Sigmoid, 6, 10)),
    Fault("deep hard sigmoid", "activation", _stacked, _deep(nn.Hardsigmoid, 6, 10), held_out=True),
    Fault("step activations", "activation", _stacked, _set(activation=Step, norm="")),
    Fault("softmax between layers", "activation", _stacked, _set(activation=_softmax, norm=""), held_out=True),
    Fault("weights too large", "initialization", _any, _weights(_normal(1.0), _multiplied(10.0))),
    Fault("weights too small", "initialization", _any, _weights(_normal(1e-3), _multiplied(0.03))),
    Fault("weights alike", "initialization", _stacked, _weights(_constant(0.0), _constant(0.05))),
    Fault(
        "dead ReLU",
        "initialization",
        _stacked,
        lambda d, r: (setattr(d, "activation", nn.ReLU), setattr(d, "norm", ""), d.weights.append(_hidden_bias(-10.0)))[
            0
        ],
    ),
    Fault("one layer off", "initialization", _stacked, _weights(_one_layer(1e-4), _one_layer(300.0)), held_out=True),
    Fault(
        "state weights too large",
        "initialization",
        lambda d: d.family in ("rnn", "lstm", "gru"),
        _weights(_state_weights(8.0), _state_weights(20.0)),
    ),
    Fault("rate too high", "optimizer", _any, lambda d, r: _rate(r.choice((50.0, 300.0)), r.choice((0.3, 1.0)))(d, r)),
    Fault("rate too low", "optimizer", _any, lambda d, r: _rate(r.choice((1e-3, 1e-4)), r.choice((1e-6, 1e-5)))(d, r)),
    Fault("plain SGD too low", "optimizer", _any, _sgd(1e-3)),
    Fault("momentum too high", "optimizer", _any, _sgd(0.1, momentum=0.995), held_out=True),
    Fault("weight decay too high", "optimizer", _any, _decay),
    Fault("Adadelta at 0.001", "optimizer", _any, _set(optimizer="adadelta", lr=1e-3, settings={}), held_out=True),
    Fault("Adagrad too low", "optimizer", _any, _set(optimizer="adagrad", lr=1e-4, settings={})),
    Fault("clipped to nothing", "optimizer", _any, _tiny_clip),
    Fault("rate that dies", "optimizer", _any, _set(scheduler=partial(ExponentialLR, gamma=0.7))),
    Fault("all but one frozen", "optimizer", _any, _weights(_frozen)),
    Fault("loss with the wrong sign", "loss", _any, _wrapped(lambda loss: -loss)),
    Fault(
        "loss scaled to nothing",
        "loss",
        _any,
        lambda d, r: (_wrapped(lambda loss: 1e-5 * loss)(d, r), _sgd(0.05)(d, r))[0],
        held_out=True,
    ),
    Fault("loss summed", "loss", _any, _summed),
    Fault("broadcast loss", "loss", _task("real"), lambda d, r: d.outputs == 1 and _flat_targets(d, r)),
    Fault("square loss on one-hot", "loss", _many, _one_hot),
    Fault("double softmax", "head", _many, _two_sided(_softmax, F.cross_entropy)),
    Fault("sigmoid before cross entropy", "head", _many, _two_sided(nn.Sigmoid, F.cross_entropy)),
    Fault("ReLU before cross entropy", "head", _many, _two_sided(nn.ReLU, F.cross_entropy), held_out=True),
    Fault("nll without log", "head", _many, _two_sided(nn.Identity, F.nll_loss)),
    Fault(
        "sigmoid twice", "head", _task("binary", "labels"), _two_sided(nn.Sigmoid, F.binary_cross_entropy_with_logits)
    ),
    Fault("softmax over one unit", "head", _task("binary"), _two_sided(_softmax, F.binary_cross_entropy)),
    Fault(
        "squashed regression",
        "head",
        _task("real"),
        lambda d, r: setattr(d, "head", r.choice((nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Softplus))),
    ),
)
