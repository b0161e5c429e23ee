"""What compiled kernels read of outputs is what NumPy reads of their samples."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.monitor.compiled_stats import Readers, readers
from steadygrad.monitor.output_stats import COLUMNS, OutputKind
from steadygrad.monitor.samples import grad_stats, sample_of, sample_stats, sampled

KINDS = {
    "linear": OutputKind(),
    "relu": OutputKind.of(nn.ReLU()),
    "tanh": OutputKind.of(nn.Tanh()),
    "pool": OutputKind.of(nn.MaxPool2d(2)),
}
SHAPES = [(1, 3), (2, 1), (3, 7), (128, 256), (40, 4096), (2, 3, 4), (16, 70, 96), (4, 5, 6, 7), (64, 24, 28, 28)]


@pytest.fixture
def compiled() -> Readers:
    pytest.importorskip("numba")
    found = readers()
    assert found is not None
    return found


def agree(compiled: Readers, kind: OutputKind, output: Tensor) -> None:
    found = compiled.outputs(kind, output)
    assert found is not None
    expected = sample_stats([sample_of(kind, output.numpy())])[0]
    size = max(abs(expected[0]), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * size, err_msg=str(COLUMNS))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_samples(kind: str, shape: tuple[int, ...], scale: float, compiled: Readers) -> None:
    torch.manual_seed(0)
    output = scale * torch.randn(shape)
    if kind == "relu":
        output.relu_()
        output[:, : max(shape[1] // 3, 1)] = 0.0  # dead units, or lines of them
    elif kind == "tanh":
        output = (3 * output / scale).tanh()
    agree(compiled, KINDS[kind], output)
    rms = grad_stats([sampled(output.numpy())])[0, 0]
    assert compiled.grads(output) == pytest.approx(rms, rel=1e-5)


def test_units_are_dead_if_no_entry_tells_otherwise(compiled: Readers) -> None:
    place = COLUMNS.index("dead_fraction")
    for shape, last in ((100, 40), (99, -1)), ((4, 40, 9, 9), (3, 0, 8, 8)), ((5, 21, 40), (4, 20, 0)):
        output = torch.zeros(shape)
        found = compiled.outputs(KINDS["relu"], output)
        assert found is not None
        assert found[place] == 1.0
        output[last] = 1.0
        found = compiled.outputs(KINDS["relu"], output)
        assert found is not None
        assert found[place] == 1 - 1 / 40


def test_what_samples_share_does_not_drown_their_difference(compiled: Readers) -> None:
    torch.manual_seed(0)
    output = 1.0 + 1e-5 * torch.randn(64, 32)
    truth = (output.double() - output.double().mean(0)).square().mean().sqrt().item()
    found = compiled.outputs(KINDS["linear"], output)
    assert found is not None
    assert found[COLUMNS.index("output_signal")] == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_to_others(bad: float, compiled: Readers) -> None:
    output = torch.ones(8, 8)
    output[3, 4] = bad
    assert compiled.outputs(KINDS["relu"], output) is None
    assert compiled.grads(output) is None


def test_what_lies_in_another_way_is_read_as_it_lies_or_left_to_others(compiled: Readers) -> None:
    torch.manual_seed(0)
    image = torch.randn(8, 16, 12, 12).relu()
    for view in (
        image.to(memory_format=torch.channels_last),
        image[:, ::2],
        image.mT,
        image[:, :1].expand(8, 9, 12, 12),
    ):
        agree(compiled, KINDS["pool"], view)
        assert compiled.outputs(KINDS["relu"], view) is None
        rms = grad_stats([sampled(view.numpy())])[0, 0]
        assert compiled.grads(view) == pytest.approx(rms, rel=1e-5)
    negative = torch.randn(4, 4, dtype=torch.complex64).conj().imag
    for other in (image.double(), image.bfloat16(), torch.eye(3).to_sparse(), negative):
        assert compiled.outputs(KINDS["linear"], other) is None
        assert compiled.grads(other) is None


def test_without_numba_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "steadygrad.monitor.kernels", None)
    assert readers.__wrapped__() is None
