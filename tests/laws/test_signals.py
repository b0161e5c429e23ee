"""What must hold of measurements whatever is measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from steadygrad.records import Moments
from steadygrad.signals import batch_deviation, moments, probe
from steadygrad.training import TrainingSetup, seeded, shuffle_weights

ENTRIES = st.floats(-1e6, 1e6, width=32)
SEEDS = st.integers(0, 1000)


@st.composite
def tensors(draw: Any) -> Tensor:
    """Tensors of up to 40 entries at any scale of float64, with zeros and values that are not finite."""
    values = draw(st.lists(ENTRIES | st.sampled_from([0.0, math.nan, math.inf, -math.inf]), max_size=40))
    return torch.tensor(values, dtype=torch.float64) * 10.0 ** draw(st.integers(-280, 280))


def model_of(seed: int, depth: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [module for _ in range(depth) for module in (nn.Linear(4, 4), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def close(found: Moments, expected: Moments, factor: float = 1.0, rel: float = 1e-9) -> None:
    size = factor * expected.rms
    assert found.rms == pytest.approx(size, rel=rel)
    assert found.abs_max == pytest.approx(factor * expected.abs_max, rel=rel)
    assert found.mean == pytest.approx(factor * expected.mean, rel=rel, abs=rel * size)
    assert found.zero_fraction == pytest.approx(expected.zero_fraction, rel=rel, nan_ok=True)
    assert (found.nonfinite, found.numel) == (expected.nonfinite, expected.numel)


@settings(max_examples=50)
@given(tensors())
def test_moments_bound_each_other(values: Tensor) -> None:
    found = moments(values)
    assert abs(found.mean) <= found.rms * (1 + 1e-9)
    assert found.rms <= found.abs_max * (1 + 1e-9)
    assert 0 <= found.zero_fraction <= 1
    assert 0 <= found.nonfinite <= found.numel == values.numel()


@settings(max_examples=50)
@given(tensors(), SEEDS)
def test_moments_do_not_depend_on_order_or_shape(values: Tensor, seed: int) -> None:
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    close(moments(values[order].reshape(1, -1, 1)), moments(values))


@settings(max_examples=50)
@given(tensors(), st.integers(-20, 20))
def test_moments_scale_with_the_tensor(values: Tensor, exponent: int) -> None:
    close(moments(values * 2.0**exponent), moments(values), 2.0**exponent)


@settings(max_examples=50)
@given(tensors(), tensors())
def test_moments_of_two_tensors_follow_from_those_of_each(first: Tensor, second: Tensor) -> None:
    one, two, both = moments(first), moments(second), moments(torch.cat([first, second]))
    n, m = one.numel - one.nonfinite, two.numel - two.nonfinite
    count = max(n + m, 1)
    assert both.numel - both.nonfinite == n + m
    assert both.rms == pytest.approx(
        math.hypot(one.rms * math.sqrt(n / count), two.rms * math.sqrt(m / count)), rel=1e-9
    )
    assert both.mean == pytest.approx((one.mean * n + two.mean * m) / count, rel=1e-9, abs=1e-9 * both.rms)
    assert both.abs_max == max(one.abs_max, two.abs_max)
    assert both.zero_fraction == pytest.approx((one.zero_fraction * n + two.zero_fraction * m) / count)


@settings(max_examples=50)
@given(st.lists(st.lists(ENTRIES, min_size=3, max_size=3), min_size=2, max_size=10), st.floats(-1e3, 1e3, width=32))
def test_the_spread_over_a_batch_ignores_what_all_samples_share(rows: list[list[float]], shift: float) -> None:
    output = torch.tensor(rows, dtype=torch.float64)
    deviation = batch_deviation(output)
    assert batch_deviation(output + shift) == pytest.approx(deviation, rel=1e-6, abs=1e-8)
    assert batch_deviation(output.flip(0)) == pytest.approx(deviation, rel=1e-9)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 4), st.sampled_from([1e-30, 1e-6, 0.5, 3.0, 1e20]))
def test_a_loss_scaled_by_c_scales_every_gradient_by_c(seed: int, depth: int, c: float) -> None:
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 3
    model = model_of(seed, depth)
    plain = probe(TrainingSetup(model, F.cross_entropy, data))[1]
    scaled = probe(TrainingSetup(model, lambda output, target: c * F.cross_entropy(output, target), data))[1]
    assert scaled.grad_norm == pytest.approx(c * plain.grad_norm, rel=1e-4)
    for found, expected in zip(scaled.layers, plain.layers, strict=True):
        close(found.output_grad, expected.output_grad, c, rel=1e-4)
        assert found.output == expected.output
        if expected.weight_grad is not None:
            close(found.weight_grad, expected.weight_grad, c, rel=1e-4)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 4))
def test_the_order_of_samples_does_not_matter(seed: int, depth: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, 4, generator=generator), torch.arange(8) % 3
    order = torch.randperm(8, generator=generator)
    model = model_of(seed, depth)
    setup = TrainingSetup(model, F.cross_entropy, (x, y), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    one, other = probe(setup, (x, y))[1], probe(setup, (x[order], y[order]))[1]
    for found, expected in zip(other.layers, one.layers, strict=True):
        close(found.output, expected.output, rel=1e-4)
        close(found.output_grad, expected.output_grad, rel=1e-4)
        assert found.signal == pytest.approx(expected.signal, rel=1e-4)
        if expected.update_ratio is not None:
            assert found.update_ratio == pytest.approx(expected.update_ratio, rel=1e-3)


@settings(max_examples=10)
@given(SEEDS, st.integers(1, 4))
def test_a_probe_repeats_itself(seed: int, depth: int) -> None:
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 3
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), *model_of(seed, depth))
    setup = TrainingSetup(model, F.cross_entropy, data, optimizer=torch.optim.AdamW)
    assert probe(setup) == probe(setup)


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 9), st.integers(2, 9))
def test_a_shuffle_keeps_every_entry_and_all_singular_values(seed: int, rows: int, columns: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows).double()
    before = layer.weight.detach().clone()
    with seeded(seed):
        shuffle_weights(layer)
    assert torch.equal(layer.weight.detach().flatten().sort().values, before.flatten().sort().values)
    singular = torch.linalg.svdvals(before)
    assert torch.allclose(torch.linalg.svdvals(layer.weight.detach()), singular, atol=1e-12)


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 9))
def test_an_orthogonal_weight_stays_orthogonal(seed: int, size: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(size, size).double()
    nn.init.orthogonal_(layer.weight)
    with seeded(seed):
        shuffle_weights(layer)
    assert torch.allclose(layer.weight @ layer.weight.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
