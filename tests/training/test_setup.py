"""A set-up is checked where it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import SteadygradError, UsageError
from steadygrad.training import TrainingSetup, trainable

DATA = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": nn.Linear}, "expected model to be a torch.nn.Module, got type"),
        ({"model": F.relu}, "expected model to be a torch.nn.Module, got function"),
        ({"loss": None}, "expected a loss, got None"),
        ({"loss": "mse"}, "expected loss to be a function, got str"),
        ({"loss": nn.MSELoss}, r"expected loss to be a function, got the class MSELoss. Pass an instance: MSELoss\(\)"),
        ({"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters())}, "got a SGD instance. Pass optimizer=lambda"),
        ({"optimizer": "sgd"}, "expected optimizer to be a function, got str"),
        ({"metric": 3}, "expected metric to be a function, got int"),
        ({"batch_size": 0}, "expected batch_size to be a whole number of at least 1, got 0"),
        ({"batch_size": "64"}, "expected batch_size to be a whole number of at least 1, got '64'"),
        ({"steps": 1.5}, "expected steps to be a whole number of at least 1, got 1.5"),
    ],
)
def test_what_is_no_set_up_is_refused(settings: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": nn.Linear(2, 2), "loss": F.cross_entropy, "train": DATA}
    with pytest.raises(UsageError, match=message) as caught:
        TrainingSetup(**(arguments | settings))
    assert isinstance(caught.value, SteadygradError)


def test_a_forward_that_returns_the_loss_needs_no_other() -> None:
    setup = TrainingSetup(nn.Linear(2, 2), None, DATA, forward=lambda model, batch: model(batch[0]).sum())
    assert setup.loss is None


def test_numpy_integers_are_whole_numbers() -> None:
    assert TrainingSetup(nn.Linear(2, 2), F.cross_entropy, DATA, batch_size=np.int64(3)).batch_size == 3


def test_a_replaced_field_leaves_the_set_up_as_it_was() -> None:
    setup = TrainingSetup(nn.Linear(2, 2), F.cross_entropy, DATA)
    other = setup.replace(steps=7)
    assert (setup.steps, other.steps) == (500, 7)
    assert other.model is setup.model


def test_a_replaced_field_is_checked() -> None:
    with pytest.raises(UsageError, match="expected steps"):
        TrainingSetup(nn.Linear(2, 2), F.cross_entropy, DATA).replace(steps=0)


def test_trainable_parameters_are_counted_once() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    found = trainable(nn.Sequential(first, second))
    assert [id(parameter) for parameter in found] == [id(first.weight), id(second.bias)]
