from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import learning_rate, optimizer
from steadygrad.training import Training


def two_groups(parameters) -> torch.optim.Optimizer:
    first, *rest = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": rest, "lr": 0.05}], momentum=0.9)


def test_parameter_groups_keep_their_ratio_to_the_largest(make_setup, mlp) -> None:
    treated = learning_rate(lr=0.01)(make_setup(mlp(), optimizer=two_groups))
    built = treated.optimizer(treated.model.parameters())
    assert [group["lr"] for group in built.param_groups] == pytest.approx([0.01, 0.0025])
    assert built.param_groups[0]["momentum"] == 0.9


def test_a_second_rate_replaces_the_first_and_the_factory_pickles(make_setup, mlp) -> None:
    treated = learning_rate(lr=0.3)(learning_rate(lr=0.01)(make_setup(mlp(), optimizer=two_groups)))
    assert treated.optimizer.factory is two_groups
    built = pickle.loads(pickle.dumps(optimizer(name="adam", lr=0.02)(treated).optimizer))(
        [nn.Parameter(torch.ones(1))]
    )
    assert isinstance(built, torch.optim.Adam)
    assert built.param_groups[0]["lr"] == 0.02


def test_rates_of_zero_and_rates_in_tensors(make_setup, mlp) -> None:
    frozen = make_setup(mlp(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    assert learning_rate(lr=0.1)(frozen).optimizer(frozen.model.parameters()).param_groups[0]["lr"] == 0.1
    tensors = make_setup(mlp(), optimizer=lambda p: torch.optim.SGD(p, lr=torch.tensor(0.5)))
    rate = learning_rate(lr=0.1)(tensors).optimizer(tensors.model.parameters()).param_groups[0]["lr"]
    torch.testing.assert_close(rate, torch.tensor(0.1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", "SGD"), ("momentum", "SGD"), ("adamw", "AdamW"), ("rmsprop", "RMSprop"), ("adagrad", "Adagrad")],
)
def test_optimizer_by_name(make_setup, mlp, name: str, kind: str) -> None:
    treated = optimizer(name=name)(make_setup(mlp()))
    built = treated.optimizer(treated.model.parameters())
    assert type(built).__name__ == kind
    assert built.param_groups[0].get("momentum", 0) == (0.9 if name == "momentum" else 0)


def test_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"expected a set-up with an optimizer"):
        learning_rate(lr=0.1)(make_setup(mlp(), optimizer=None))
    with pytest.raises(UsageError, match=r"learning_rate: expected lr above 0 and finite, got -1"):
        learning_rate(lr=-1)(make_setup(mlp()))
    with pytest.raises(UsageError, match=r"optimizer: expected lr above 0"):
        optimizer(lr=0.0)(make_setup(mlp()))


@pytest.mark.parametrize("name", ["adadelta", "adagrad", "adam", "adamw", "momentum", "nesterov", "rmsprop", "sgd"])
def test_the_fused_kernel_is_used_where_there_is_one_and_steps_alike(make_setup, mlp, name: str) -> None:
    weights = []
    for fused in (True, False):
        training = Training(optimizer(name=name, lr=0.01, fused=fused)(make_setup(mlp())), seed=0)
        has_one = name not in ("adadelta", "rmsprop")
        assert bool(training._optimizer.param_groups[0].get("fused")) == (fused and has_one)
        training.advance(4)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_sparse_gradients_need_the_plain_kernel_and_switches_must_be_true_or_false(make_setup) -> None:
    words = make_setup(nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3)))
    words = words.replace(train=(torch.arange(96).view(48, 2) % 5, words.train[1]))
    training = Training(optimizer(name="sgd", lr=0.1, fused=False)(words), seed=0)
    training.advance(2)
    assert not training.diverged
    with pytest.raises(UsageError, match=r"optimizer: expected for 'fused' True or False, got 1"):
        optimizer(fused=1)
