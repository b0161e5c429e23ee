from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError
from steadygrad.remedies import depth_std, initialization, make
from steadygrad.remedies.drawing import is_linear_in_pairs
from steadygrad.signals.meanfield import chi, gain
from steadygrad.training import Training, TrainingSetup, evaluate
from steadygrad.training.datasets import load

PAIRED = [nn.ReLU, nn.GELU, nn.SiLU, nn.Softplus, nn.Hardswish]
BOUNDED = [nn.Tanh, nn.Sigmoid, nn.Hardsigmoid]


def isometric(make_setup, activation: type[nn.Module], depth: int = 50, method: str = "isometric") -> TrainingSetup:
    torch.manual_seed(0)
    body = [layer for _ in range(depth - 2) for layer in (nn.Linear(32, 32), activation())]
    model = nn.Sequential(nn.Linear(20, 32), activation(), *body, nn.Linear(32, 10)).double()
    setup = make_setup(model, shape=(20,), classes=10, batch_size=48)
    x, y = setup.train
    return initialization(method=method)(setup.replace(train=(x.double(), y)))


def hidden_singular_values(setup: TrainingSetup) -> Tensor:
    """Those of the Jacobian from the first hidden pre-activations to the last ones, at the first sample."""
    start = setup.model[0](setup.train[0][0])
    return torch.linalg.svdvals(torch.func.jacrev(setup.model[1:-2])(start))


@pytest.mark.parametrize("activation", PAIRED)
def test_a_pair_of_units_is_linear(activation: type[nn.Module]) -> None:
    z, f = torch.linspace(-20, 20, 1001, dtype=torch.float64), activation()
    torch.testing.assert_close(f(z) - f(-z), z, rtol=0, atol=1e-14)
    assert is_linear_in_pairs(activation())


@pytest.mark.parametrize("activation", [nn.ELU, nn.Mish, *BOUNDED])
def test_other_pairs_are_not(activation: type[nn.Module]) -> None:
    assert not is_linear_in_pairs(activation())


@pytest.mark.parametrize("activation", PAIRED)
def test_paired_networks_are_the_product_of_their_weights(make_setup, activation: type[nn.Module]) -> None:
    setup = isometric(make_setup, activation)
    model, x = setup.model, setup.train[0]
    first, *hidden, head = (module for module in model if isinstance(module, nn.Linear))
    product, offset = first.weight[:16], first.bias[:16]
    for layer in hidden:
        product, offset = layer.weight[:16, :16] @ product, layer.weight[:16, :16] @ offset + layer.bias[:16]
    product, offset = head.weight[:, :16] @ product, head.weight[:, :16] @ offset + head.bias
    torch.testing.assert_close(model(x), x @ product.T + offset, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", PAIRED)
def test_paired_networks_are_isometries(make_setup, activation: type[nn.Module]) -> None:
    """Half of the 32 directions are those of the pairs; across them a pair's outputs are one and the same."""
    setup = isometric(make_setup, activation)
    weights = [module.weight[:16, :16] for module in setup.model[2:-1] if isinstance(module, nn.Linear)]
    one = torch.ones(16, dtype=torch.float64)
    for weight in weights:
        torch.testing.assert_close(torch.linalg.svdvals(weight), one, rtol=1e-12, atol=1e-12)
    x = setup.train[0][0]
    whole = torch.linalg.svdvals(torch.func.jacrev(setup.model)(x))
    ends = setup.model[-1].weight[:, :16] @ torch.linalg.multi_dot([*weights[::-1], setup.model[0].weight[:16]])
    torch.testing.assert_close(whole, torch.linalg.svdvals(ends), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", BOUNDED)
def test_bounded_networks_are_nearly_isometries_and_plain_orthogonal_ones_are_not(make_setup, activation) -> None:
    def size_and_spread(method: str) -> tuple[float, float]:
        values = hidden_singular_values(isometric(make_setup, activation, depth=100, method=method))
        low, high = values.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
        return values.square().mean().sqrt().item(), (high / low).item()

    size, spread = size_and_spread("isometric")
    assert 1 / 1.5 < size < 1.5
    assert spread < 5
    size, spread = size_and_spread("orthogonal")
    assert size < 1e-30 or spread > 1000


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hardsigmoid", "softplus", "elu"])
@pytest.mark.parametrize("layers", [3, 100, 10_000])
def test_the_growth_of_gradients_over_the_whole_depth_has_one_bound(activation: str, layers: int) -> None:
    std = depth_std(activation, layers)
    growth = chi(activation, std, centered=True) ** layers
    assert growth <= 1.5 * (1 + 1e-9)
    assert std == 1 or growth == pytest.approx(1.5, rel=1e-2)


def test_tanh_shrinks_with_the_fourth_root_of_the_depth() -> None:
    assert depth_std("tanh", 100) / depth_std("tanh", 1_600) == pytest.approx(2, rel=0.1)
    assert depth_std("tanh", 1000) == pytest.approx((3 * math.log(1.5) / 4 / 1000) ** 0.25, rel=0.1)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.inner(x))


@pytest.mark.parametrize("inner", [Skip(), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())])
def test_other_than_plain_networks_are_refused(make_setup, inner: nn.Module) -> None:
    with pytest.raises(NotApplicableError, match=r"isometric: expected a plain network of Linear and Conv layers"):
        initialization(method="isometric")(
            make_setup(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), inner, nn.Linear(8, 3)))
        )


class Last(nn.Module):
    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(4, 32, batch_first=True, **settings), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def delayed(make_setup, model: nn.Module, steps: int = 200) -> TrainingSetup:
    """One input, and then nothing for many time steps."""
    setup = make_setup(model, shape=(4,), batch_size=48)
    return setup.replace(train=(F.pad(setup.train[0].unsqueeze(1), (0, 0, 0, steps - 1)), setup.train[1]))


def test_a_recurrent_state_keeps_what_it_saw(make_setup) -> None:
    """Distances between states at the end are those after the first step; PyTorch's weights forget."""

    def kept(setup: TrainingSetup) -> Tensor:
        states = setup.model.rnn(setup.train[0])[0]
        return torch.pdist(states[:, -1]) / torch.pdist(states[:, 0])

    torch.manual_seed(0)
    given = delayed(make_setup, Last())
    setup = initialization(method="isometric")(given)
    assert kept(setup).median().item() == pytest.approx(1, rel=0.2)
    assert kept(given).max() < 1e-6
    deviations = setup.model.rnn(setup.train[0])[0].var(0, correction=0).mean(-1).sqrt()
    assert deviations.max().item() == pytest.approx(
        depth_std("tanh", 200) / gain("tanh", depth_std("tanh", 200)), rel=0.1
    )
    assert len(setup.model.rnn._forward_pre_hooks) == 0


@pytest.mark.parametrize("settings", [{"nonlinearity": "relu"}, {"num_layers": 2}])
def test_other_recurrent_layers_are_refused(make_setup, settings: dict[str, object]) -> None:
    with pytest.raises(NotApplicableError, match=r"or nn.RNN with tanh, one layer and one direction"):
        initialization(method="isometric")(delayed(make_setup, Last(**settings)))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [nn.Softplus, nn.Sigmoid])
def test_a_hundred_layers_learn_at_once(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    body = [layer for _ in range(99) for layer in (nn.Linear(64, 64), activation())]
    data = load("digits")
    setup = TrainingSetup(nn.Sequential(*body, nn.Linear(64, 10)), F.cross_entropy, data.train, None, data.test)
    setup = make("centered_updates", lr=0.3)(initialization(method="isometric")(setup))
    training = Training(setup, seed=0)
    training.advance(60)
    assert evaluate(setup, training.model, data.test)[1] > 0.9
