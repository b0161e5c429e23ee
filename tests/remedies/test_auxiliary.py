from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import auxiliary_loss, auxiliary_outputs, plan_auxiliary
from steadygrad.training import Training, TrainingSetup, evaluate, run_batch
from steadygrad.training.datasets import load


def test_the_main_output_and_old_parameters_stay(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Tanh, hidden=5))
    treated = auxiliary_loss()(setup)
    x = setup.train[0]
    assert torch.equal(treated.model(x), setup.model(x))
    assert torch.equal(treated.model.eval()(x), setup.model(x))
    old = setup.model.state_dict()
    assert all(torch.equal(treated.model.state_dict()[name], value) for name, value in old.items())
    added = set(treated.model.state_dict()) - set(old)
    assert added == {f"{place}.auxiliary.{name}" for place in (4, 6) for name in ("weight", "bias")}


def test_the_loss_is_the_weighted_sum(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Tanh, hidden=4))
    treated = auxiliary_loss(weight=0.25, heads=3)(setup)
    step = run_batch(treated, treated.model, setup.train)
    model, (x, y) = treated.model, setup.train
    expected = F.cross_entropy(model(x), y)
    for place in (2, 4, 6):
        expected = expected + 0.25 * F.cross_entropy(model[place].auxiliary(model[:place](x)), y)
    torch.testing.assert_close(step.loss, expected)
    with torch.no_grad():
        model.eval()
        assert torch.equal(run_batch(treated, model, setup.train).loss, F.cross_entropy(model(x), y))


def test_outputs_are_handed_over_once_and_in_training_only(make_setup, mlp) -> None:
    setup = make_setup(mlp(hidden=4))
    undo = plan_auxiliary(setup, heads=2).apply_(setup.model)
    model, x = setup.model, setup.train[0]
    model(x)
    copy.deepcopy(model)  # what hangs on a graph stays behind
    assert [tuple(output.shape) for output in auxiliary_outputs(model)] == [(48, 3)] * 2
    assert auxiliary_outputs(model) == []
    model.eval()(x)
    assert auxiliary_outputs(model) == []
    undo.undo()
    assert not any("auxiliary" in name for name, _ in model.named_modules())


def test_heads_are_trained_along(make_setup, mlp) -> None:
    treated = auxiliary_loss()(make_setup(mlp(hidden=4)))
    training = Training(treated, seed=0)
    training.advance(3)
    before, after = treated.model.state_dict(), training.model.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if name.endswith("weight"))


def test_channels_and_sequences_are_averaged(make_setup) -> None:
    same = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), *same, nn.Flatten(), nn.Linear(64, 3))
    setup = make_setup(model, shape=(2, 4, 4))
    plan_auxiliary(setup, heads=1).apply_(setup.model)
    model(setup.train[0])
    h = model[:2](setup.train[0])
    torch.testing.assert_close(auxiliary_outputs(model)[0], model[2].auxiliary.forward(h.mean((2, 3), keepdim=True)))

    layers = [nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Flatten(), nn.Linear(40, 3)]
    setup = make_setup(nn.Sequential(*layers), shape=(5, 8))
    plan_auxiliary(setup, heads=1).apply_(setup.model)
    setup.model(setup.train[0])
    h = torch.tanh(layers[0](setup.train[0])).mean(1)
    expected = F.linear(h, layers[2].auxiliary.weight, layers[2].auxiliary.bias)
    torch.testing.assert_close(auxiliary_outputs(setup.model)[0], expected)


def test_refusals(make_setup, mlp) -> None:
    setup = make_setup(mlp(hidden=3))
    with pytest.raises(NotApplicableError, match=r"expected 3 inner layers .* output of shape \(32, 3\), found 2"):
        auxiliary_loss(heads=3)(setup)
    with pytest.raises(UsageError, match=r"expected heads to be a whole number above 0, got 0"):
        auxiliary_loss(heads=0)(setup)
    with pytest.raises(UsageError, match=r"expected weight above 0 and finite, got 0"):
        auxiliary_loss(weight=0)(setup)
    own = setup.replace(loss=None, forward=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    with pytest.raises(NotApplicableError, match=r"its forward returns the loss itself"):
        auxiliary_loss()(own)
    image = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    setup = make_setup(image, shape=(2, 4, 4), loss=lambda output, y: F.cross_entropy(output.mean((2, 3)), y))
    with pytest.raises(NotApplicableError, match=r"found 0. Outputs of shape \(batch, columns\)"):
        auxiliary_loss(heads=1)(setup)


def deep(activation: type[nn.Module], depth: int) -> TrainingSetup:
    torch.manual_seed(0)
    digits = load("digits")
    layers = [layer for _ in range(depth - 1) for layer in (nn.Linear(64, 64), activation())]
    return TrainingSetup(
        nn.Sequential(*layers, nn.Linear(64, 10)),
        F.cross_entropy,
        digits.train,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-3),
        validation=digits.test,
    )


def test_gradients_reach_the_first_layer_on_the_shorter_way() -> None:
    def first_gradient(setup: TrainingSetup) -> float:
        model = copy.deepcopy(setup.model)
        run_batch(setup, model, (setup.train[0][:256], setup.train[1][:256])).loss.backward()
        return model[0].weight.grad.norm().item()

    plain = deep(nn.Sigmoid, 12)
    assert first_gradient(plain) < 1e-8
    assert first_gradient(auxiliary_loss(heads=2)(plain)) > 1e-5
    assert first_gradient(auxiliary_loss(heads=10)(plain)) > 1e-3


@pytest.mark.slow
def test_a_deep_network_that_does_not_learn_by_its_output_alone_learns_with_heads() -> None:
    def accuracy(setup: TrainingSetup) -> float:
        training = Training(setup, seed=1)
        training.advance(300)
        return evaluate(setup, training.model, setup.validation)[1]

    plain = deep(nn.ReLU, 20)
    assert accuracy(plain) < 0.2
    assert accuracy(auxiliary_loss(heads=18)(plain)) > 0.5
    # The layers behind the last head saturate as before: no head helps them.
    assert accuracy(auxiliary_loss(heads=2)(deep(nn.Sigmoid, 12))) < 0.3
