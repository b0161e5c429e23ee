"""Pretraining as a remedy."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad import diagnose, prescribe, verify
from steadygrad.boltzmann.pretraining import pretrain_, pretraining
from steadygrad.errors import NotApplicableError
from steadygrad.records import Prescription, Step, Verdict
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


def article_network() -> TrainingSetup:
    """Return the articles' network on digits: 500-300-200 sigmoid units, weights from N(0, 0.01), clipped at 1."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in, width in ((64, 500), (500, 300), (300, 200)):
        layers += [nn.Linear(fan_in, width), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(200, 10))
    for module in model[::2]:
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    given = TrainingSetup(model, F.cross_entropy, DIGITS.train, optimizer, DIGITS.test, batch_size=50, steps=300)
    return make("clip_by_global_norm", max_norm=1.0)(given)


def test_the_articles_network_is_found_sick_and_pretraining_prescribed() -> None:
    diagnosis = diagnose(article_network())
    assert {"SG101", "SG401"} <= {finding.code for finding in diagnosis.findings}
    assert any(step.remedy == "pretraining" for made in prescribe(diagnosis) for step in made.steps)
    assert not any(step.remedy == "pretraining" for made in prescribe(diagnosis, True) for step in made.steps)
    rectified = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.Sigmoid) else m for m in article_network().model))
    other = diagnose(article_network().replace(model=rectified))
    assert not any(step.remedy == "pretraining" for made in prescribe(other) for step in made.steps)


@pytest.mark.slow
def test_the_articles_network_is_proven_to_learn_after_pretraining() -> None:
    adam = Step("optimizer", {"name": "adamw", "lr": 3e-3})
    proof = verify(Prescription((Step("pretraining", {"epochs": 5}), adam)), article_network(), seeds=(1, 2))
    assert proof.verdict in (Verdict.IMPROVED, Verdict.CURED)
    assert max(run.score for run in proof.before) < 0.2
    assert min(run.score for run in proof.after) > 0.6


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
