"""The training loop repeats itself bit for bit, touches nothing it was given, and blames whoever fails."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from steadygrad.errors import SetupError, UsageError
from steadygrad.training import Training, TrainingSetup, make_optimizer

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
LABELS = (X[:, 0] > 0).long()


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def setup_of(*extra: nn.Module, **settings: Any) -> TrainingSetup:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *extra, nn.Linear(8, 2))
    arguments: dict[str, Any] = {
        "model": model,
        "loss": F.cross_entropy,
        "train": (X, LABELS),
        "optimizer": sgd,
        "batch_size": 8,
    }
    return TrainingSetup(**(arguments | settings))


def train(setup: TrainingSetup, seed: int = 0, steps: int = 12) -> Training:
    training = Training(setup, seed)
    training.advance(steps)
    return training


def loaded(**settings: Any) -> DataLoader:
    return DataLoader(TensorDataset(X, LABELS), batch_size=8, shuffle=True, **settings)


@pytest.mark.parametrize(
    "data", [(X, LABELS), loaded(), loaded(generator=torch.Generator())], ids=["arrays", "loader", "own generator"]
)
def test_a_training_follows_from_its_seed_alone(data: Any) -> None:
    setup = setup_of(nn.Dropout(0.5), train=data)
    first = train(setup, seed=5)
    torch.manual_seed(123)
    again = Training(setup, 5)
    for _ in range(4):  # other trainings run in between
        again.advance(3)
        train(setup, seed=6, steps=2)
        torch.rand(7)
    assert again.losses == first.losses
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.model.state_dict().values(), first.model.state_dict().values(), strict=True)
    )
    assert train(setup, seed=6).losses != first.losses


def test_the_callers_random_state_is_left_alone() -> None:
    setup = setup_of(nn.Dropout(0.5))
    before = torch.get_rng_state()
    train(setup)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_set_up_is_left_alone() -> None:
    setup = setup_of(nn.BatchNorm1d(8)).replace()
    setup.model.eval()
    setup.model[0].weight.grad = torch.ones(8, 4)
    before = copy.deepcopy(setup.model.state_dict())
    training = train(setup)
    assert all(torch.equal(a, b) for a, b in zip(setup.model.state_dict().values(), before.values(), strict=True))
    assert bool((setup.model[0].weight.grad == 1).all())
    assert not setup.model.training
    assert training.model.training
    assert not torch.equal(training.model[0].weight, setup.model[0].weight)


def test_every_pass_has_an_order_of_its_own() -> None:
    seen: list[Tensor] = []

    def forward(model: nn.Module, batch: Any) -> Tensor:
        seen.append(batch[0][:, 0].clone())
        return model(batch[0])

    train(setup_of(forward=forward), steps=10)  # two passes of five batches
    first, second = torch.cat(seen[:5]), torch.cat(seen[5:])
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


def test_training_learns() -> None:
    training = train(setup_of(), steps=200)
    assert training.recent_loss() < 0.3 * training.losses[0]


def test_steps_are_reported_as_they_are_made() -> None:
    reported: list[int] = []
    training = Training(setup_of(), 0)
    training.advance(2, reported.append)
    training.advance(0, reported.append)
    training.advance(3, reported.append)
    assert reported == [1, 2, 3, 4, 5]


def test_divergence_ends_a_training_for_good() -> None:
    training = train(setup_of(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30)), steps=50)
    made = len(training.losses)
    assert training.diverged
    assert made < 50
    assert not math.isfinite(training.losses[-1])
    assert training.recent_loss() == math.inf
    training.advance(5)
    assert len(training.losses) == made


def test_a_batch_that_makes_the_loss_nan_is_not_learned_from() -> None:
    data = [(X[:8], LABELS[:8]), (X[8:16] * math.nan, LABELS[8:16])]
    training = Training(setup_of(train=data), 0)
    training.advance(1)
    before = copy.deepcopy(training.model.state_dict())
    training.advance(1)
    assert training.diverged
    assert all(torch.equal(a, b) for a, b in zip(training.model.state_dict().values(), before.values(), strict=True))


def test_lbfgs_is_given_its_closure() -> None:
    setup = setup_of(
        optimizer=lambda parameters: torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe"), batch_size=40
    )
    training = train(setup, steps=5)
    assert len(training.losses) == 5
    assert training.losses[-1] < 0.2


def test_the_scheduler_is_stepped_once_a_step() -> None:
    rates: list[float] = []

    def scheduler(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates.append(step) or 1.0)

    train(setup_of(scheduler=scheduler), steps=4)
    assert rates == [0, 1, 2, 3, 4]


def test_frozen_parameters_stay() -> None:
    setup = setup_of()
    setup.model[0].requires_grad_(False)
    training = train(setup)
    assert torch.equal(training.model[0].weight, setup.model[0].weight)
    assert not torch.equal(training.model[2].weight, setup.model[2].weight)


def test_sparse_gradients_train() -> None:
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True))
    training = train(setup_of(model=model, train=(torch.arange(40) % 5, LABELS)))
    assert training.losses[-1] != training.losses[0]


def test_compiled_models_train() -> None:
    setup = setup_of()
    expected = train(setup).losses
    compiled = setup.replace(model=torch.compile(setup.model, backend="eager"))
    assert train(compiled).losses == pytest.approx(expected)


def test_nothing_to_report_before_the_first_step() -> None:
    assert Training(setup_of(), 0).recent_loss() == math.inf


def test_a_generator_that_runs_dry_is_told() -> None:
    def stream() -> Iterator[Any]:
        yield X, LABELS
        yield X, LABELS

    training = Training(setup_of(train=stream()), 0)
    training.advance(2)
    with pytest.raises(SetupError, match=r"data: expected an iterable that can be read again.*not a generator"):
        training.advance(1)


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle")


def raise_at_step(parameters: Any) -> torch.optim.Optimizer:
    optimizer = sgd(parameters)
    optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    return optimizer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": Uncopyable(4, 2)}, "model: cannot be copied: TypeError: cannot pickle"),
        ({"model": nn.Linear(3, 2)}, "model: forward failed on"),
        ({"loss": lambda output, target: 1 / 0}, "loss: failed on .*ZeroDivisionError"),
        ({"optimizer": lambda parameters: 1 / 0}, "optimizer: the factory failed: ZeroDivisionError"),
        ({"optimizer": raise_at_step}, "optimizer: step failed: ZeroDivisionError"),
        ({"scheduler": lambda optimizer: 1 / 0}, "scheduler: the factory failed: ZeroDivisionError"),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, "scheduler: step failed: TypeError"),
        ({"train": (X, LABELS[:-1])}, "expected tensors or arrays of equal length, got lengths 40, 39"),
    ],
)
def test_every_fault_of_the_user_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        train(setup_of(**settings))
    assert "\n" not in str(caught.value)


def test_a_backward_pass_that_fails_is_blamed() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        output.register_hook(lambda grad: 1 / 0)
        return output.sum()

    with pytest.raises(SetupError, match="loss: the backward pass failed: ZeroDivisionError"):
        train(setup_of(loss=loss))


def test_training_needs_an_optimizer() -> None:
    with pytest.raises(UsageError, match="expected an optimizer, got None"):
        Training(setup_of(optimizer=None), 0)


def test_an_optimizer_over_other_parameters_is_refused() -> None:
    setup = setup_of()
    setup = setup.replace(optimizer=lambda _: sgd(setup.model.parameters()))
    make_optimizer(setup, setup.model)
    with pytest.raises(SetupError, match="expected one over the parameters that the factory is given"):
        Training(setup, 0)
