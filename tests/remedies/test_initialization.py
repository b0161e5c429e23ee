from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import Step, initialization, lsuv_, normalization, residual
from steadygrad.signals import probe
from steadygrad.training import Training, TrainingSetup, evaluate
from steadygrad.training.datasets import load


@pytest.mark.parametrize("method", ["he", "xavier", "orthogonal", "delta_orthogonal"])
def test_each_layer_gets_the_gain_of_what_follows_and_the_head_gets_one(make_setup, mlp, method: str) -> None:
    def scale(activation: type[nn.Module], layer: int) -> float:
        torch.manual_seed(1)
        return (
            initialization(method=method)(make_setup(mlp(activation, width=64), shape=(64,))).model[layer].weight.std()
        )

    assert (scale(nn.SiLU, 0) / scale(nn.Identity, 0)).item() == pytest.approx(1.677, rel=1e-3)
    assert torch.equal(scale(nn.SiLU, 6), scale(nn.Identity, 6))


ACTIVATIONS = [nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU]


def deep(activation: type[nn.Module], depth: int = 30) -> TrainingSetup:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth - 1) for layer in (nn.Linear(64, 64), activation())]
    digits = load("digits")
    return TrainingSetup(
        nn.Sequential(*layers, nn.Linear(64, 10)),
        F.cross_entropy,
        digits.train,
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-3),
        validation=digits.test,
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_thirty_layers_keep_signal_and_gradient(activation: type[nn.Module]) -> None:
    blueprint, seen = probe(initialization()(deep(activation)))
    hidden = [stats for layer, stats in zip(blueprint.layers, seen.layers, strict=True) if layer.role == "linear"][:-1]
    for values in ([s.signal for s in hidden], [s.output_grad.rms for s in hidden]):
        assert max(values) / min(values) < 2


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_thirty_layers_learn(activation: type[nn.Module]) -> None:
    setup = initialization()(deep(activation))
    training = Training(setup.replace(optimizer=lambda p: torch.optim.Adam(p, lr=7e-4)), seed=1)
    training.advance(400)
    assert evaluate(setup, training.model, setup.validation)[1] > 0.9  # seen: .92 to .97; without it .10 to .12


def test_twins_make_a_rectifier_network_linear_at_first(make_setup, mlp) -> None:
    model = initialization()(make_setup(mlp(nn.GELU, hidden=4))).model
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(x) + model(-x), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(model(3 * x), 3 * model(x), atol=1e-5, rtol=1e-4)


def test_bounded_activations_are_centered_unit_by_unit(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid), batch_size=48)
    first = initialization(std=0.3)(setup).model[0](setup.train[0])
    torch.testing.assert_close(first.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    assert first.std(correction=0).item() == pytest.approx(0.3, rel=1e-4)


def test_convolutions_are_scaled_on_their_channels(make_setup) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    setup = make_setup(model, shape=(1, 6, 6), batch_size=48)
    treated = initialization()(setup).model
    h = treated[0](setup.train[0])
    assert h.square().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert torch.equal(treated[0].weight[:3], -treated[0].weight[3:])
    centered = treated[2](treated[1](h))
    torch.testing.assert_close(centered.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert centered.std(correction=0).item() == pytest.approx(0.5, rel=1e-4)


def test_recurrent_states_get_orthogonal_maps_and_keep_their_biases(make_setup) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.out = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.cells(x)[0][:, -1])

    torch.manual_seed(0)
    setup = make_setup(Last(), shape=(5, 8))
    cells = initialization()(setup).model.cells
    for gate in cells.weight_hh_l0.split(6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
    assert torch.equal(cells.bias_ih_l0, setup.model.cells.bias_ih_l0)
    assert not torch.equal(cells.weight_ih_l0, setup.model.cells.weight_ih_l0)


def test_attention_is_drawn_matrix_by_matrix(make_setup) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = initialization()(make_setup(nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)), shape=(5, 8))).model
    for part in model[0].self_attn.in_proj_weight.chunk(3):
        torch.testing.assert_close(part @ part.T, torch.eye(8), atol=1e-5, rtol=0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(8, 8)
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)
        self.out.weight = self.words.weight

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(torch.tanh(self.inner(self.words(index)))))


def test_embeddings_frozen_and_repeated_layers(make_setup) -> None:
    setup = make_setup(Tied(), classes=8)
    setup = setup.replace(train=(torch.arange(48) % 8, setup.train[1]))
    treated = initialization()(setup).model
    assert torch.equal(treated.words.weight, setup.model.words.weight)  # tied to the output, and left alone
    pre = treated.inner(treated.words(setup.train[0][:32]))
    assert not torch.equal(treated.inner.weight, setup.model.inner.weight)
    assert pre.std(correction=0).item() == pytest.approx(0.5, rel=0.3)  # scaled once, at the first call
    setup.model.requires_grad_(False)
    with pytest.raises(NotApplicableError, match=r"expected trainable Linear, Conv, recurrent or attention modules"):
        initialization()(setup)


def test_statistics_modes_and_hooks_are_left_as_found(make_setup, mlp) -> None:
    model = mlp(nn.Tanh)
    model.insert(1, nn.BatchNorm1d(8))
    model[1].eval()
    setup = residual()(normalization()(make_setup(model)))
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in setup.model.modules()]
    lsuv_(setup)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in setup.model.modules()] == hooks
    assert torch.equal(setup.model[1].running_mean, torch.zeros(8))
    assert setup.model[1].num_batches_tracked == 0


def test_shortcuts_get_no_twins(make_setup, mlp) -> None:
    weight = initialization()(residual()(make_setup(mlp(nn.ReLU)))).model[2].weight
    assert not torch.allclose(weight[:4], -weight[4:])


def test_half_precision_and_dead_inputs(make_setup, mlp) -> None:
    setup = make_setup(mlp().bfloat16())
    setup = setup.replace(train=(setup.train[0].bfloat16() * 0, setup.train[1]))
    model = initialization()(setup).model
    assert model[0].weight.dtype is torch.bfloat16
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_std_is_positive(make_setup, mlp) -> None:
    with pytest.raises(UsageError, match=r"expected std above 0, got 0"):
        initialization(std=0.0)(make_setup(mlp()))


@pytest.mark.parametrize("slope", [0.01, 0.5])
def test_the_gain_is_that_of_the_very_module_that_follows(make_setup, slope: float) -> None:
    model = nn.Sequential(nn.Linear(400, 400), nn.LeakyReLU(slope, inplace=True), nn.Linear(400, 3))
    weight = initialization(method="he")(make_setup(model, shape=(400,))).model[0].weight
    assert weight.std().item() == pytest.approx((2 / (1 + slope**2) / 400) ** 0.5, rel=0.01)


def test_steps_have_a_gain_too(make_setup) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 400), Step(), nn.Linear(400, 3))
    weight = initialization(method="he", std=1)(make_setup(model, shape=(400,))).model[0].weight
    assert weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01)  # E f^2 = 1/2


def test_backward_mode_keeps_gradients_where_forward_mode_keeps_signals(make_setup) -> None:
    widths = [600, 60] * 5 + [600]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    torch.manual_seed(0)
    setup = make_setup(nn.Sequential(*layers, nn.Linear(600, 3)), shape=(600,))

    def change(mode: str, signal: bool) -> float:
        blueprint, seen = probe(initialization(method="he", mode=mode)(setup))
        pairs = zip(blueprint.layers, seen.layers, strict=True)
        hidden = [stats for layer, stats in pairs if layer.role == "linear"][:-1]
        sizes = [(s.output if signal else s.output_grad).rms for s in hidden[1::2]]  # all of one width
        return sizes[-1] / sizes[0]

    assert change("fan_in", signal=True) == pytest.approx(1, abs=0.5)
    assert change("fan_out", signal=False) == pytest.approx(1, abs=0.5)


def test_small_random_weights_make_the_signal_vanish(make_setup, mlp) -> None:
    torch.manual_seed(0)
    setup = make_setup(mlp(hidden=20, width=256), shape=(256,))
    x = torch.randn(256, 256)

    def remains(**settings: object) -> float:
        return initialization(**settings)(setup).model[:-1](x).std().item()

    assert remains(method="small") < 1e-18
    assert remains(method="small", distribution="uniform", std=0.0173) < 1e-18  # the same deviation, 0.01
    assert remains(method="small", std=0.0884) == pytest.approx(remains(method="he"), rel=0.7)
    assert 0.3 < remains(method="he") < 2


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Softplus])
def test_looks_linear_networks_are_isometries(make_setup, activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(32, 32), activation())]
    setup = make_setup(nn.Sequential(nn.Linear(16, 32), activation(), *layers, nn.Linear(32, 16)), shape=(16,))
    model, x = initialization(method="looks_linear")(setup).model, setup.train[0]
    torch.testing.assert_close(model(x).norm(dim=1), x.norm(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(2 * x - x.flip(0)), 2 * model(x) - model(x).flip(0), rtol=1e-3, atol=1e-4)


def test_groups_are_drawn_one_by_one(make_setup) -> None:
    body = [nn.Conv1d(8, 8, 1, groups=2), nn.Identity(), nn.ConvTranspose1d(8, 8, 1, groups=2)]
    setup = make_setup(nn.Sequential(*body, nn.Flatten(), nn.Linear(24, 3)), shape=(8, 3))
    model = initialization(method="orthogonal")(setup).model
    for part in (*model[0].weight.chunk(2), *model[2].weight.chunk(2)):
        torch.testing.assert_close(part[:, :, 0] @ part[:, :, 0].T, torch.eye(4), atol=1e-5, rtol=0)


def test_deep_linear_convolutions_keep_images_only_if_delta_orthogonal(make_setup) -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(40)]
    setup = make_setup(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(100, 3)), shape=(4, 5, 5))
    x = setup.train[0]

    def remains(method: str) -> float:
        return (initialization(method=method)(setup).model[:40](x).norm() / x.norm()).item()

    assert remains("delta_orthogonal") == pytest.approx(1, rel=1e-5)
    assert remains("orthogonal") < 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "lsuv", "mode": "fan_in"}, r"expected no mode for method='lsuv', got 'fan_in'. Leave it out"),
        ({"method": "orthogonal", "distribution": "normal"}, r"expected no distribution for method='orthogonal'"),
        ({"method": "small", "mode": "fan_out"}, r"expected no mode for method='small'"),
        ({"method": "lecun", "std": 0.5}, r"expected no std for method='lecun', got 0.5"),
        ({"method": "he", "longest": 5}, r"expected no longest for method='he', got 5"),
        ({"method": "small", "std": -0.1}, r"expected std above 0, got -0.1"),
    ],
)
def test_settings_that_a_method_does_not_take_are_refused(make_setup, mlp, settings, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        initialization(**settings)(make_setup(mlp()))
