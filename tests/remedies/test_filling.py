from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from steadygrad.remedies import delta_orthogonal_, he_, lecun_, orthogonal_, scaled_, small_, xavier_
from steadygrad.training import seeded

SHAPES = [(300, 200), (60, 40, 3, 3), (30, 20, 5)]


def drawn(draw: Callable[[Tensor], object], shape: tuple[int, ...]) -> Tensor:
    weight = torch.empty(shape)
    with seeded(3):
        draw(weight)
    return weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda w: xavier_(w), lambda w: nn.init.xavier_uniform_(w)),
        (lambda w: xavier_(w, distribution="normal"), lambda w: nn.init.xavier_normal_(w)),
        (lambda w: he_(w), lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (lambda w: he_(w, distribution="uniform"), lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (lambda w: he_(w, mode="fan_out"), lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
        (lambda w: lecun_(w), lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
        (lambda w: small_(w, 0.02), lambda w: nn.init.normal_(w, std=0.02)),
        (lambda w: small_(w, 0.02, "uniform"), lambda w: nn.init.uniform_(w, -0.02, 0.02)),
        (lambda w: orthogonal_(w), lambda w: nn.init.orthogonal_(w)),
    ],
)
def test_torchs_own_numbers_where_torch_has_the_method(ours, torchs, shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(drawn(ours, shape), drawn(torchs, shape), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_variances_are_those_of_the_formulas(activation: str, distribution: str) -> None:
    forward, backward = {"relu": (1.414, 1.414), "tanh": (1.593, 1.467), "silu": (1.677, 1.623)}[activation]
    sizes = {"fan_in": forward / 200**0.5, "fan_out": backward / 400**0.5, "fan_avg": forward / 300**0.5}
    for mode, size in sizes.items():
        weight = drawn(lambda w, mode=mode: scaled_(w, activation, 1.0, mode, distribution), (400, 200))
        assert weight.std().item() == pytest.approx(size, rel=0.01)
        assert abs(weight.mean().item()) < 0.02 * size
        largest = {"normal": 4.5, "uniform": math.sqrt(3), "truncated": 2 / 0.8796}[distribution]
        assert largest * 0.8 < weight.abs().max().item() / size < largest * 1.3
        assert distribution == "normal" or weight.abs().max().item() <= largest * size * 1.001


def test_lecun_takes_no_notice_of_the_activation() -> None:
    assert drawn(lecun_, (400, 200)).std().item() == pytest.approx(200**-0.5, rel=0.01)
    assert torch.equal(drawn(lecun_, (40, 20)), drawn(lambda w: he_(w, "identity"), (40, 20)))


@pytest.mark.parametrize(("channels", "out"), [(6, 6), (4, 9)])
def test_delta_orthogonal_convolutions_keep_norms(channels: int, out: int) -> None:
    convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False, dtype=torch.float64)
    torch.manual_seed(0)
    delta_orthogonal_(convolution.weight)
    x = torch.randn(5, channels, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(convolution(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    center = convolution.weight[:, :, 1, 1]
    torch.testing.assert_close(center.T @ center, torch.eye(channels, dtype=torch.float64))
    assert convolution.weight.count_nonzero() == center.count_nonzero()


def test_delta_orthogonal_takes_the_gain_and_falls_back_without_a_kernel() -> None:
    kernel = drawn(lambda w: delta_orthogonal_(w, "relu"), (8, 8, 4))
    assert torch.linalg.svdvals(kernel[:, :, 2]) == pytest.approx(2**0.5, rel=1e-5)
    assert torch.equal(drawn(delta_orthogonal_, (8, 5)), drawn(orthogonal_, (8, 5)))


def test_empty_weights_are_no_trouble() -> None:
    assert he_(torch.empty(3, 0)).numel() == 0
