from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import CenteredAdam, centered_updates, compose, initialization, make
from steadygrad.training import Training, make_optimizer


def test_it_is_adam_on_centered_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(30, n, generator=generator, dtype=torch.float64) for n in (5, 4))
    mean = x.mean(0)
    layer, centered = nn.Linear(5, 4).double(), nn.Linear(5, 4).double()
    with torch.no_grad():
        centered.weight.copy_(layer.weight)
        centered.bias.copy_(layer.bias + layer.weight @ mean)
    ours = CenteredAdam(layer.parameters(), [(layer.weight, layer.bias, mean)], lr=0.1)
    reference = torch.optim.Adam(centered.parameters(), lr=0.1)
    for _ in range(5):
        for module, inputs, optimizer in ((layer, x, ours), (centered, x - mean, reference)):
            optimizer.zero_grad()
            (module(inputs) - y).square().mean().backward()
            optimizer.step()
        torch.testing.assert_close(layer(x), centered(x - mean), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.weight, centered.weight, rtol=1e-12, atol=1e-12)


def deep(make_setup, mlp, activation: type[nn.Module], hidden: int = 12):
    setup = make_setup(mlp(activation, hidden=hidden).double())
    setup = setup.replace(train=(setup.train[0].double(), setup.train[1]))
    torch.manual_seed(1)
    return compose(make("initialization", method="isometric"), make("centered_updates", lr=0.3))(setup)


def test_sigmoid_networks_train_as_tanh_networks_do(make_setup, mlp) -> None:
    """``sigmoid(2 z) = (1 + tanh(z)) / 2``: offset and scale must not matter, step by step."""
    losses = []
    for activation in (nn.Sigmoid, nn.Tanh):
        training = Training(deep(make_setup, mlp, activation, hidden=30), seed=0)
        training.advance(20)
        losses.append(training.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.8 * losses[0][0]


def test_a_first_step_changes_each_output_by_at_most_its_share(make_setup, mlp) -> None:
    setup = deep(make_setup, mlp, nn.Tanh)
    training = Training(setup, seed=0)
    x = setup.train[0][:32]
    before, inputs = setup.model[2](setup.model[1](setup.model[0](x))), setup.model[1](setup.model[0](x))
    training.advance(1)
    change = (training.model[2](inputs) - before).abs()
    share = 0.3 * before.std() / 11  # of 13 layers, 11 lie between the first and the last
    assert 0.1 * share < change.mean() < 2.2 * share  # weights and bias each make one, up to rounded rates


def test_copies_keep_the_means(make_setup, mlp) -> None:
    setup = deep(make_setup, mlp, nn.Sigmoid)
    model = setup.model
    optimizer = make_optimizer(setup, model)
    model2, optimizer2 = copy.deepcopy((model, optimizer))
    model3, optimizer3 = pickle.loads(pickle.dumps((model, optimizer)))
    for net, own in ((model, optimizer), (model2, optimizer2), (model3, optimizer3)):
        own.zero_grad()
        net(setup.train[0]).square().mean().backward()
        own.step()
    for net in (model2, model3):
        assert torch.equal(net[0].bias, model[0].bias)


def test_the_calls_of_a_recurrent_layer_add_up(make_setup) -> None:
    def rates(steps: int) -> dict[str, float]:
        torch.manual_seed(0)
        setup = make_setup(Reader(), shape=(steps, 4))
        groups = centered_updates(lr=1)(setup).optimizer(setup.model.parameters()).param_groups
        names = {id(parameter): name for name, parameter in setup.model.named_parameters()}
        return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}

    short, long = rates(10), rates(40)
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0"):
        assert short[name] / long[name] == pytest.approx(4, rel=0.3)
    assert short["out.bias"] / long["out.bias"] == pytest.approx(1, rel=0.3)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def test_what_cannot_be_measured_is_refused(make_setup, mlp) -> None:
    with pytest.raises(UsageError, match=r"centered_updates: expected lr above 0 and finite, got 0"):
        centered_updates(lr=0)(make_setup(mlp()))
    normalized = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(NotApplicableError, match=r"expected all trainable parameters in Linear layers and nn.RNN"):
        centered_updates()(make_setup(normalized))
    twice = nn.Linear(8, 8)
    with pytest.raises(NotApplicableError, match=r"each layer called once, found a second call"):
        centered_updates()(make_setup(nn.Sequential(twice, nn.ReLU(), twice, nn.Linear(8, 3))))
    dead = mlp()
    nn.init.zeros_(dead[2].weight)
    with pytest.raises(NotApplicableError, match=r"expected a signal in each layer, got .* Initialize with"):
        centered_updates()(make_setup(dead))
    measured = centered_updates()(initialization(method="isometric")(make_setup(mlp())))
    with pytest.raises(NotApplicableError, match=r"expected the 8 parameters that it measured, got 2"):
        measured.optimizer(nn.Linear(8, 3).parameters())
