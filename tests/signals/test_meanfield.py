from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from steadygrad.errors import UsageError
from steadygrad.signals.meanfield import activation_by_kind, chi, gain, gaussian_moments


@pytest.mark.parametrize(
    ("kind", "forward", "backward"),
    [
        ("sigmoid", 1.846, 4.723),
        ("tanh", 1.593, 1.467),
        ("relu", 1.414, 1.414),
        ("elu", 1.245, 1.223),
        ("selu", 1.000, 0.966),
        ("silu", 1.677, 1.623),
        ("gelu", 1.534, 1.481),
        ("mish", 1.487, 1.445),
        ("softplus", 1.042, 1.846),
        ("hardsigmoid", 1.898, 6.008),
        ("hardswish", 1.737, 1.670),
    ],
)
def test_gains_agree_with_independent_quadrature(kind: str, forward: float, backward: float) -> None:
    assert gain(kind) == pytest.approx(forward, abs=6e-4)
    assert gain(kind, direction="backward") == pytest.approx(backward, abs=6e-4)


def test_relu_is_exact_because_no_panel_spans_its_corner() -> None:
    assert gain("relu", q=0.37) == pytest.approx(math.sqrt(2), rel=1e-12)
    assert gaussian_moments("relu").mean == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-12)
    assert chi("relu", centered=True) == pytest.approx(1 / (1 - 1 / math.pi), rel=1e-12)


@pytest.mark.parametrize("q", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("kind", ["tanh", "hardtanh", "gelu", "sigmoid"])
def test_moments_agree_with_sampling(kind: str, q: float) -> None:
    x = q * torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = activation_by_kind(kind)(x)
    moments = gaussian_moments(kind, q)
    assert moments.second == pytest.approx(y.square().mean().item(), rel=0.02)
    assert moments.variance == pytest.approx(y.var().item(), rel=0.02)


def test_modules_functions_and_both_spellings_agree() -> None:
    module = nn.LeakyReLU(0.3)
    assert gain(module) == pytest.approx(math.sqrt(2 / (1 + 0.3**2)), rel=1e-12)
    assert gain(lambda x: x.clamp_min(0)) == pytest.approx(gain("ReLU"), rel=1e-12) == gain("relu_")
    assert gain("LeakyReLU") == gain("leaky_relu") == pytest.approx(gain(nn.LeakyReLU()))
    assert gain(nn.PReLU()) == pytest.approx(gain("PReLU"))
    assert gain(nn.Identity(), q=3.0) == pytest.approx(1.0)


def test_chi_tells_order_from_chaos() -> None:
    assert chi("sigmoid") < 0.2  # uncentered sigmoids vanish
    assert chi("tanh", q=2.0) > 1.5  # wide tanh networks explode
    assert chi("tanh", q=0.01) == pytest.approx(1.0, abs=1e-3)


def test_unknown_kinds_and_bad_widths_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got 'sigmoidd'. Did you mean 'sigmoid'?"):
        gain("sigmoidd")
    with pytest.raises(UsageError, match=r"got 'Softmax'"):
        gain("Softmax")
    with pytest.raises(UsageError, match=r"expected q above 0, got 0.0"):
        gain("relu", q=0.0)
