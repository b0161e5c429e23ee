from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError
from steadygrad.remedies import compose, initialization, normalization, residual
from steadygrad.signals import probe


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.inner(x)))


def test_old_keys_and_values_stay_and_outputs_are_normalized(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid))
    treated = normalization(kind="layer")(setup)
    for key, value in setup.model.state_dict().items():
        assert torch.equal(treated.model.state_dict()[key], value)
    out = treated.model[0](setup.train[0])
    torch.testing.assert_close(out.mean(-1), torch.zeros(48), atol=1e-5, rtol=0)
    assert not hasattr(treated.model[6], "norm")  # the head


def test_functional_activations_are_reached(make_setup) -> None:
    setup = make_setup(Functional())
    model = normalization()(setup).model
    x = setup.train[0]
    expected = model.out(F.relu(F.layer_norm(F.linear(x, model.inner.weight, model.inner.bias), (8,))))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("kind", "norm"), [("layer", nn.GroupNorm), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)]
)
def test_convolutions_are_normalized_by_channel(make_setup, kind: str, norm: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 3)).double()
    setup = make_setup(model, shape=(1, 6, 6))
    setup = setup.replace(train=(setup.train[0].double(), setup.train[1]))
    treated = normalization(kind=kind)(setup)
    assert type(treated.model[0].norm) is norm
    assert treated.model[0].norm.weight.dtype is torch.float64
    assert treated.model(setup.train[0]).shape == (48, 3)


def test_sequences_are_normalized_over_features_by_every_kind(make_setup) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Flatten(), nn.Linear(40, 3))
    setup = make_setup(model, shape=(5, 8))
    for kind in ("layer", "batch", "rms", "group"):
        treated = normalization(kind=kind)(setup).model
        assert treated[0](setup.train[0]).shape == (48, 5, 8)
    batch = normalization(kind="batch")(setup).model[0](setup.train[0])
    torch.testing.assert_close(batch.mean((0, 1)), torch.zeros(8), atol=1e-5, rtol=0)


def test_what_is_normalized_already_or_cannot_be_is_refused(make_setup) -> None:
    done = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(NotApplicableError, match=r"without a normalization behind them, found none"):
        normalization()(make_setup(done))
    conv = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    with pytest.raises(NotApplicableError, match=r"kind='rms', which works over features, found a convolution"):
        normalization(kind="rms")(make_setup(conv, shape=(1, 8)))


def test_applying_it_twice_is_refused_because_the_blueprint_sees_the_first(make_setup, mlp) -> None:
    once = normalization()(make_setup(mlp()))
    with pytest.raises(NotApplicableError, match=r"found none"):
        normalization()(once)


@pytest.mark.parametrize(("kind", "expected"), [("batch", math.pi / (math.pi - 1)), ("layer", 1.0), ("rms", 1.0)])
def test_batch_norm_makes_gradients_of_deep_plain_networks_explode(make_setup, mlp, kind: str, expected: float) -> None:
    # Yang et al. 2019, theorem 3.9: pi / (pi - 1) a ReLU layer, for mean squares, at any weights.
    setup = make_setup(mlp(nn.ReLU, hidden=30, width=192), shape=(192,))
    setup = setup.replace(train=(torch.randn(192, 192), torch.arange(192) % 3), batch_size=192)

    def growth(setup) -> float:
        blueprint, seen = probe(setup)
        pairs = zip(blueprint.layers, seen.layers, strict=True)
        sizes = [stats.output_grad.rms for layer, stats in pairs if layer.role == "activation"]
        return (sizes[0] / sizes[-1]) ** (2 / (len(sizes) - 1))

    treated = compose(initialization(method="he"), normalization(kind=kind))(setup)
    assert growth(treated) == pytest.approx(expected, rel=0.03)
    assert growth(residual()(treated)) == pytest.approx(1, rel=0.03)  # shortcuts end the explosion
