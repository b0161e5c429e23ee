from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import orthogonal_weights, pruning, spectral_norm, weight_norm, weight_standardization
from steadygrad.signals.meanfield import gain

ALL = [orthogonal_weights, pruning, spectral_norm, weight_norm, weight_standardization]


def hidden(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model if isinstance(module, nn.Linear)][:-1]


@pytest.mark.parametrize("remedy", ALL, ids=lambda remedy: remedy.card.name)
def test_pickles_and_copies_give_the_same_numbers_train_alike_and_leave_the_original_whole(
    remedy, make_setup, mlp
) -> None:
    treated = remedy()(make_setup(mlp()))
    x = treated.train[0]
    models = [pickle.loads(pickle.dumps(treated.model)), copy.deepcopy(treated.model), treated.model]
    models.append(pickle.loads(pickle.dumps(models[0])))
    outputs = []
    for model in models:
        model.eval()(x).square().sum().backward()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        optimizer.step()
        outputs.append(model(x))
    assert all(torch.equal(output, outputs[0]) for output in outputs[1:])
    assert all(parametrize.is_parametrized(module) for module in hidden(models[-1]))


@pytest.mark.parametrize("remedy", ALL, ids=lambda remedy: remedy.card.name)
def test_the_head_is_left_alone_and_nothing_is_parametrized_twice(remedy, make_setup, mlp) -> None:
    treated = remedy()(make_setup(mlp()))
    assert not parametrize.is_parametrized(treated.model[-1])
    with pytest.raises(NotApplicableError, match=r"found none that has no parametrization yet"):
        remedy()(treated)


def test_weights_are_what_they_are_said_to_be(make_setup, mlp) -> None:
    setup = make_setup(mlp(hidden=2, width=16), shape=(16,))
    for module in hidden(orthogonal_weights()(setup).model):
        torch.testing.assert_close(module.weight @ module.weight.T, torch.eye(16), atol=1e-5, rtol=0)
    for module in hidden(spectral_norm()(setup).model):
        for _ in range(300):
            module.train()(torch.ones(1, 16))
        assert torch.linalg.matrix_norm(module.weight, 2).item() == pytest.approx(1.0, rel=1e-3)
    for module in hidden(weight_standardization()(setup).model):
        assert module.weight.mean(1).abs().max() < 1e-6
        torch.testing.assert_close(module.weight.square().sum(1).sqrt(), torch.full((16,), gain("relu")))


def test_weight_norm_equals_torchs_and_changes_no_output(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    treated = weight_norm()(setup)
    x = setup.train[0]
    torch.testing.assert_close(treated.model(x), setup.model(x))
    module, reference = treated.model[0], parametrizations.weight_norm(copy.deepcopy(setup.model[0]))
    for each in (module, reference):
        each(x).square().sum().backward()
    pairs = zip(
        module.parametrizations.weight.parameters(), reference.parametrizations.weight.parameters(), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("remedy", ALL, ids=lambda remedy: remedy.card.name)
def test_zero_weights_stay_finite_and_can_learn(remedy, make_setup, mlp) -> None:
    model = mlp(nn.Tanh, hidden=1)
    nn.init.zeros_(model[0].weight)
    treated = remedy()(make_setup(model))
    output = treated.model(treated.train[0])
    (output * torch.randn_like(output)).sum().backward()
    gradients = [p.grad for p in treated.model[0].parameters() if p.dim() > 1 and p.grad is not None]
    assert output.isfinite().all()
    assert sum(gradient.abs().sum() for gradient in gradients) > 0 or remedy is pruning


def test_pruning_drops_the_smallest_of_all_layers_for_good(make_setup, mlp) -> None:
    model = mlp(hidden=2)
    with torch.no_grad():
        model[2].weight.mul_(0.01)
        model[0].weight.add_(1.0)
    treated = pruning(amount=0.5)(make_setup(model))
    small, large = treated.model[2].weight, treated.model[0].weight
    assert (large != 0).all()
    assert (small == 0).all()
    treated.model(treated.train[0]).sum().backward()
    torch.optim.SGD(treated.model.parameters(), lr=1.0).step()
    assert (treated.model[2].weight == 0).all()


def test_refusals(make_setup, mlp) -> None:
    half = make_setup(mlp().bfloat16())
    half = half.replace(train=(half.train[0].bfloat16(), half.train[1]))
    with pytest.raises(NotApplicableError, match=r"expected weights of 32 or 64 bits, got torch.bfloat16"):
        orthogonal_weights()(half)
    with pytest.raises(UsageError, match=r"pruning: expected amount at least 0 and below 1, got 1"):
        pruning(amount=1)(make_setup(mlp()))
