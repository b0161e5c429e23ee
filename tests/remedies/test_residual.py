from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import residual
from steadygrad.training import Training, TrainingSetup, evaluate
from steadygrad.training.datasets import load


def test_each_block_adds_its_output_to_its_input(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Tanh, hidden=3))
    model, x = residual(scale=0.5)(setup).model, setup.train[0]
    h = x
    for layer in (setup.model[0], setup.model[2], setup.model[4]):
        h = h + 0.5 * torch.tanh(layer(h))
    torch.testing.assert_close(model(x), setup.model[6](h))


def test_scale_zero_makes_blocks_identities(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=4))
    x = setup.train[0]
    assert torch.equal(residual(scale=0)(setup).model(x), setup.model[-1](x))


def test_the_default_scale_follows_the_number_of_blocks(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.ReLU, hidden=4))
    x = setup.train[0]
    assert torch.equal(residual()(setup).model(x), residual(scale=1 / math.sqrt(4))(setup).model(x))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.sigmoid(self.second(torch.sigmoid(self.first(x)))))


def test_functional_activations_are_inside_and_other_shapes_stay_outside(make_setup) -> None:
    setup = make_setup(Functional())
    model, x = setup.model, setup.train[0]
    h = torch.sigmoid(model.first(x))
    torch.testing.assert_close(residual(scale=1)(setup).model(x), model.out(h + torch.sigmoid(model.second(h))))


def test_gradients_reach_the_first_layer_of_a_deep_sigmoid_network(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=20))

    def first_gradient(model: nn.Module) -> float:
        F.cross_entropy(model(setup.train[0]), setup.train[1]).backward()
        return model[0].weight.grad.square().mean().sqrt().item()

    assert first_gradient(residual()(setup).model) > 1e6 * first_gradient(copy.deepcopy(setup.model))


def test_convolutions_need_equal_places_too(make_setup) -> None:
    same = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), *same, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    setup = make_setup(model, shape=(1, 6, 6))
    h = torch.relu(setup.model[0](setup.train[0]))
    h = h + torch.relu(setup.model[2](h))  # the only block: the others change the size
    torch.testing.assert_close(residual(scale=1)(setup).model(setup.train[0]), setup.model[4:](h))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def test_networks_with_residual_connections_or_without_blocks_are_refused(make_setup) -> None:
    with pytest.raises(NotApplicableError, match=r"found none. Make consecutive hidden layers equally wide"):
        residual()(make_setup(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))))
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Block(), Block(), nn.Linear(8, 3))
    with pytest.raises(NotApplicableError, match=r"that no residual connection spans, found none"):
        residual()(make_setup(model))
    with pytest.raises(UsageError, match=r"expected scale of 0 or above, got -1"):
        residual(scale=-1)(make_setup(model))


def test_a_failed_forward_pass_leaves_nothing_behind_in_copies(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Tanh))
    model = residual()(setup).model
    expected = model(setup.train[0])
    with pytest.raises(RuntimeError, match=r"shape"):
        model(torch.ones(2, 7))
    torch.testing.assert_close(copy.deepcopy(model)(setup.train[0]), expected)


@pytest.mark.parametrize("kind", ["rezero", "skipinit", "layerscale"])
def test_learned_scales_of_zero_make_blocks_identities_and_learn_from_the_first_step(make_setup, mlp, kind) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=3))
    treated = residual(kind=kind, scale=0.0)(setup)
    assert torch.equal(treated.model(setup.train[0]), setup.model[-1](setup.train[0]))
    F.cross_entropy(treated.model(setup.train[0]), setup.train[1]).backward()
    for reader in (2, 4, 6):
        assert bool((treated.model[reader].branch.scale.grad != 0).all())


@pytest.mark.parametrize("kind", ["rezero", "layerscale"])
def test_learned_scales_start_as_the_plain_connection_of_that_scale(make_setup, mlp, kind) -> None:
    setup = make_setup(mlp(nn.Tanh))
    plain, learned = (residual(kind=each, scale=0.25)(setup).model for each in ("plain", kind))
    torch.testing.assert_close(learned(setup.train[0]), plain(setup.train[0]))


def test_scales_have_the_published_starts_and_shapes(make_setup, mlp) -> None:
    setup = make_setup(mlp().double())
    setup = setup.replace(train=(setup.train[0].double(), setup.train[1]))
    assert residual(kind="rezero")(setup).model[2].branch.scale.item() == 0
    assert residual(kind="rezero")(setup).model[2].branch.scale.shape == ()
    per_channel = residual(kind="layerscale")(setup).model[6].branch.scale
    assert torch.equal(per_channel, torch.full((8,), 1e-4, dtype=torch.float64))
    same = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*same, nn.Flatten(), nn.Linear(144, 3))
    treated = residual(kind="layerscale")(make_setup(model, shape=(4, 6, 6))).model
    assert treated[2].branch.scale.shape == (4, 1, 1)


def test_old_keys_stay_and_learned_scales_add_theirs(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    old = list(setup.model.state_dict())
    assert list(residual()(setup).model.state_dict()) == old
    assert set(residual(kind="rezero")(setup).model.state_dict()) - set(old) == {
        "2.branch.scale", "4.branch.scale", "6.branch.scale",
    }  # fmt: skip


def test_two_chains_keep_two_sums(make_setup) -> None:
    wide = [nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh()]
    model = nn.Sequential(*wide, nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    setup = make_setup(model)
    h = setup.train[0]
    for block in (model[0:2], model[2:4]):
        h = h + block(h)
    h = model[4:6](h)
    torch.testing.assert_close(residual(scale=1)(setup).model(setup.train[0]), model[8](h + model[6:8](h)))


def deep(depth: int) -> TrainingSetup:
    torch.manual_seed(0)
    digits = load("digits")
    layers = [layer for _ in range(depth - 1) for layer in (nn.Linear(64, 64), nn.ReLU())]
    return TrainingSetup(
        nn.Sequential(*layers, nn.Linear(64, 10)),
        F.cross_entropy,
        digits.train,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-3),
        validation=digits.test,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "rezero", "layerscale"])
def test_sixty_plain_relu_layers_learn_with_connections_and_not_without(kind: str) -> None:
    def accuracy(setup: TrainingSetup) -> float:
        training = Training(setup, seed=1)
        training.advance(200)
        return evaluate(setup, training.model, setup.validation)[1]

    assert accuracy(residual(kind=kind)(deep(60))) > 0.9
    if kind == "rezero":
        assert accuracy(deep(60)) < 0.2
