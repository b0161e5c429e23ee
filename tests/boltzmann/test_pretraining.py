"""Pretraining as a remedy."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.boltzmann.pretraining import pretrain_, pretraining
from steadygrad.errors import NotApplicableError
from steadygrad.remedies import make
from steadygrad.training import TrainingSetup
from steadygrad.training.datasets import load
from steadygrad.training.loop import Training
from steadygrad.training.metric import evaluate

DIGITS = load("digits")


def sigmoid_stack(depth: int, scale: float = 0.01) -> nn.Sequential:
    """Return the articles' network in small: weights from N(0, 0.01)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in [64] * depth:
        layers += [nn.Linear(64, width), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, scale)
            nn.init.zeros_(module.bias)
    return model


def setup(model: nn.Module) -> TrainingSetup:
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    return TrainingSetup(model, F.cross_entropy, DIGITS.train, optimizer, DIGITS.test, batch_size=50, steps=600)


def accuracy(trained: TrainingSetup) -> float:
    training = Training(trained, 0)
    training.advance(trained.steps)
    return evaluate(trained, training.model, DIGITS.test)[1]


def test_pretraining_cures_a_deep_sigmoid_network() -> None:
    given = setup(sigmoid_stack(4))
    before = [parameter.clone() for parameter in given.model.parameters()]
    treated = make("pretraining", epochs=10)(given)
    assert all(torch.equal(a, b) for a, b in zip(before, given.model.parameters(), strict=True))
    assert accuracy(given) < 0.3
    assert accuracy(treated) > 0.8


def test_inputs_of_any_scale_are_folded_into_the_first_layer() -> None:
    rows, odd = DIGITS.train[0], DIGITS.train[0] * 40 - 7
    model = sigmoid_stack(2)
    assert pretrain_(model, odd, epochs=3) == 2
    activity = model[:2](odd)
    assert 0.02 < activity.std(0).mean() < 0.5
    assert rows.shape == odd.shape


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)), nn.Linear(64, 10)],
)
def test_other_networks_are_declined(model: nn.Module) -> None:
    with pytest.raises(
        NotApplicableError, match=r"expected a torch\.nn\.Sequential that begins with two or more pairs"
    ):
        pretraining()(setup(model))
