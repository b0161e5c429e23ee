"""The compiled pass, the same in plain Python, and torch's several passes give one result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from steadygrad.monitor import one_pass
from steadygrad.monitor.output_stats import COLUMNS, OutputKind, output_stats, output_stats_by_tensors

KINDS = {
    "linear": OutputKind(),
    "relu": OutputKind.of(nn.ReLU()),
    "tanh": OutputKind.of(nn.Tanh()),
    "pool": OutputKind.of(nn.MaxPool2d(2)),
}


def made(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randn(shape)
    return {"relu": torch.relu, "tanh": torch.tanh}.get(kind, torch.Tensor.clone)(x)


@pytest.mark.parametrize("shape", [(2, 1), (3, 7), (64, 300), (2, 3, 4), (4, 5, 6, 7), (3, 2, 50, 60)])
@pytest.mark.parametrize("kind", KINDS)
def test_three_ways_to_the_same_statistics(monkeypatch: pytest.MonkeyPatch, kind: str, shape: tuple[int, ...]) -> None:
    output = made(kind, shape, 0)
    output[:, 0] = 0.0
    fast = output_stats(KINDS[kind], output)
    by_tensors = output_stats_by_tensors(KINDS[kind], output).tolist()
    monkeypatch.setattr("steadygrad.monitor.output_stats.one_pass", lambda: None)
    slow = output_stats(KINDS[kind], output)
    assert len(fast) == len(COLUMNS)
    assert fast == pytest.approx(slow, rel=1e-5, abs=1e-7, nan_ok=True)
    assert fast == pytest.approx(by_tensors, rel=1e-5, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_counted(value: float) -> None:
    output = made("relu", (16, 12), 0)
    output[3, 4] = value
    stats = dict(zip(COLUMNS, output_stats(KINDS["relu"], output), strict=True))
    assert stats["output_nonfinite"] == 1
    assert np.isfinite(stats["output_rms"])


def test_what_samples_share_does_not_drown_their_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    output = 1.0 + 1e-5 * made("linear", (64, 32), 0)
    truth = (output.double() - output.double().mean(0)).square().mean().sqrt().item()
    place = COLUMNS.index("output_signal")
    assert output_stats(KINDS["linear"], output)[place] == pytest.approx(truth, rel=1e-3)
    monkeypatch.setattr("steadygrad.monitor.output_stats.one_pass", lambda: None)
    assert output_stats(KINDS["linear"], output)[place] == pytest.approx(truth, rel=1e-3)


@settings(max_examples=25)
@given(rows=st.integers(1, 5), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_sums_in_plain_python(rows: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    columns = np.zeros(width, np.float32)
    low, high = np.float32(-0.5), np.float32(0.5)
    sums = one_pass.output_sums(values.reshape(-1), rows, low, high, columns)
    total, squares, deviation, peak, nonzero, outside = sums
    wide = values.astype(np.float64)
    assert total == pytest.approx(wide.sum(), rel=1e-4, abs=1e-5)
    assert squares == pytest.approx((wide**2).sum(), rel=1e-5)
    assert deviation == pytest.approx(((wide - wide.mean(0)) ** 2).sum(), rel=1e-4, abs=1e-5)
    assert peak == np.abs(values).max()
    assert (nonzero, outside) == ((values != 0).sum(), ((values <= low) | (values >= high)).sum())
    np.testing.assert_allclose(columns, wide.sum(0), rtol=1e-4, atol=1e-5)


def test_without_numba_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    one_pass._compiled.cache_clear()
    assert one_pass.one_pass() is None
    one_pass._compiled.cache_clear()
