"""Faults of the user: one sentence, or a count for the rules to judge."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import SetupError
from steadygrad.signals import probe

from .networks import LABELS, Net, X, setup_of


@pytest.mark.parametrize(
    ("model", "loss", "settings", "message"),
    [
        (nn.Flatten(), F.cross_entropy, {}, "model: expected a model with parameters, got one without"),
        (nn.LazyLinear(3), F.cross_entropy, {}, "model: expected parameters with a shape, got lazy ones"),
        (nn.Linear(5, 3), F.cross_entropy, {}, r"model: forward failed on \(float32\[12, 4\], int64\[12\]\)"),
        (nn.Linear(4, 3), F.nll_loss, {"train": (X, LABELS[:, None])}, r"loss: failed on float32\[12, 3\] and int64"),
        (nn.Linear(4, 3), lambda o, t: o, {}, r"loss: expected a scalar tensor, got float32\[12, 3\]. Reduce it"),
        (nn.Linear(4, 3), lambda o, t: 1.0, {}, "loss: expected a scalar tensor, got float"),
        (nn.Linear(4, 3), F.cross_entropy, {"optimizer": lambda p: 1 / 0}, "the factory failed: ZeroDivisionError"),
        (nn.Linear(4, 3), F.cross_entropy, {"optimizer": lambda p: None}, "to return a torch optimizer, got NoneType"),
    ],
)  # fmt: skip
def test_every_fault_of_the_user_is_one_sentence(model: nn.Module, loss: Any, settings: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        probe(setup_of(model, loss, **settings))
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_other_parameters_is_counted_and_never_steps() -> None:
    other = nn.Linear(2, 2)
    before = copy.deepcopy(other.state_dict())
    blueprint, observation = probe(
        setup_of(nn.Linear(4, 3), optimizer=lambda p: torch.optim.SGD([*p, *other.parameters()], lr=1.0))
    )
    assert blueprint.foreign == 2
    assert blueprint.unoptimized == ()
    assert all(stats.update_ratio is None for stats in observation.layers)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in before.items())


def test_labels_out_of_range_are_counted_and_the_rest_is_measured() -> None:
    model = nn.Linear(4, 2)
    blueprint, observation = probe(setup_of(model))
    assert blueprint.labels_outside == int((LABELS > 1).sum()) > 0
    assert (blueprint.target.low, blueprint.target.high) == (LABELS.min(), LABELS.max())
    nearest, known = probe(setup_of(model, train=(X, LABELS.clamp(max=1))))
    assert nearest.labels_outside == 0
    assert observation == known


def test_a_backward_pass_that_fails_is_blamed() -> None:
    net = Net(lambda m, x: (h := m.a(x).exp(), h.add_(1), m.b(h))[-1], a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    with pytest.raises(SetupError, match=r"loss: the backward pass failed: RuntimeError: .*inplace operation"):
        probe(setup_of(net))
