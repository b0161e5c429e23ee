from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import batch_size, standardize_inputs, standardize_targets


def scaled(setup, scale: float = 1.0, shift: float = 0.0):
    x, y = setup.train
    return setup.replace(train=(x * scale + shift, y))


def inner_input(model: nn.Module, *args: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = model.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(*args)
    handle.remove()
    return seen[0]


def test_inputs_reach_the_inner_model_standardized(make_setup, mlp) -> None:
    setup = scaled(make_setup(mlp(), batch_size=48), scale=1e4, shift=3e5)
    treated = standardize_inputs()(setup)
    inside = inner_input(treated.model, setup.train[0])
    torch.testing.assert_close(inside.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(inside.std(0, correction=0), torch.ones(8), atol=1e-4, rtol=0)
    assert not list(treated.model.parameters(recurse=False))


def test_statistics_do_not_depend_on_the_batches(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    x, y = setup.train
    loaders = [DataLoader(TensorDataset(x + 1e3, y), size) for size in (48, 7)]
    one, many = (standardize_inputs()(setup.replace(train=loader)).model for loader in loaders)
    torch.testing.assert_close(one.std_0, many.std_0)
    torch.testing.assert_close(one.mean_0[0].double(), (x + 1e3).double().mean(0), check_dtype=False)


def test_constant_features_are_only_centered(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    x, y = setup.train
    x = x.clone()
    x[:, 3] = 0.1
    model = standardize_inputs()(setup.replace(train=(x, y))).model
    assert model.std_0[0, 3] == 1
    assert inner_input(model, x)[:, 3].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("layers", "shape", "statistics"),
    [
        ([nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 9, 3)], (2, 5, 5), (1, 2, 1, 1)),
        ([nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 3, 3)], (2, 5), (1, 2, 1)),
        ([nn.Linear(4, 2), nn.Flatten(), nn.Linear(10, 3)], (5, 4), (1, 1, 4)),
    ],
)
def test_statistics_are_by_channel_or_feature(make_setup, layers, shape, statistics) -> None:
    torch.manual_seed(0)
    assert standardize_inputs()(make_setup(nn.Sequential(*layers), shape=shape)).model.mean_0.shape == statistics


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(5, 8), nn.Linear(8, 3)

    def forward(self, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.words(index) + x)


def test_integer_inputs_pass_and_named_arguments_are_found(make_setup) -> None:
    setup = make_setup(Mixed())
    x, y = setup.train
    index = torch.arange(48) % 5
    model = standardize_inputs()(setup.replace(train=(index, x * 50, y))).model
    assert sorted(dict(model.named_buffers())) == ["mean_1", "std_1"]
    named = setup.replace(
        train=(index, x * 50, y), forward=lambda model, batch: model(index=batch[0], x=batch[1]).view(-1, 3)
    )
    model = standardize_inputs()(named).model
    assert sorted(dict(model.named_buffers())) == ["mean_x", "std_x"]
    assert model(index=index, x=x).shape == (48, 3)


def test_input_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"its inputs are standardized already"):
        standardize_inputs()(standardize_inputs()(make_setup(mlp())))
    words = make_setup(nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 3)))
    words = words.replace(train=(torch.arange(48) % 5, words.train[1]))
    with pytest.raises(NotApplicableError, match=r"found none. Indices of an embedding need no scaling"):
        standardize_inputs()(words)
    parts = make_setup(mlp(), forward=lambda model, batch: model[6](batch[0]))
    with pytest.raises(NotApplicableError, match=r"expected forward\(model, batch\) to call the model"):
        standardize_inputs()(parts)
    with pytest.raises(NotApplicableError, match=r"expected inputs with a finite mean"):
        standardize_inputs()(scaled(make_setup(mlp()), shift=float("nan")))


@pytest.mark.parametrize(("shape", "outputs"), [((48,), 1), ((48, 1), 1), ((48, 2), 2)])
def test_an_untrained_network_answers_in_the_units_of_the_targets(make_setup, mlp, shape, outputs) -> None:
    target = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e3 + 2e4
    setup = make_setup(mlp(outputs=outputs), loss=lambda o, t: F.mse_loss(o.view(t.shape), t), batch_size=48)
    setup = setup.replace(train=(setup.train[0], target))
    treated = standardize_targets()(setup)
    inner = setup.model(setup.train[0])
    expected = inner * target.std(0, correction=0) + target.mean(0)
    torch.testing.assert_close(treated.model(setup.train[0]), expected)
    assert treated.model.model[0].weight is not setup.model[0].weight


def test_target_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"got targets of kind 'class index'. Only real targets have a scale"):
        standardize_targets()(make_setup(mlp()))
    real = make_setup(mlp(outputs=1), loss=lambda o, t: F.mse_loss(o[:, 0], t))
    real = real.replace(train=(real.train[0], real.train[0][:, 0] * 7))
    with pytest.raises(NotApplicableError, match=r"its output is scaled already"):
        standardize_targets()(standardize_targets()(real))


def test_the_batch_size_of_tensors_changes_and_that_of_a_loader_does_not(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    assert batch_size(samples=7)(setup).batch_size == 7
    with pytest.raises(NotApplicableError, match=r"got batches. Change the size in their DataLoader"):
        batch_size()(setup.replace(train=DataLoader(TensorDataset(*setup.train), 4)))
    with pytest.raises(UsageError, match=r"expected samples to be a whole number of at least 1, got 0.5"):
        batch_size(samples=0.5)(setup)
