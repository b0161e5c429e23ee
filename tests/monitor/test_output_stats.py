"""What is read of outputs: on the host, by tensors alone, and of large ones by a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.monitor.output_stats import COLUMNS, OutputKind, output_stats_by_tensors
from steadygrad.monitor.samples import ENOUGH, sample_of, sample_stats, sampled

KINDS = {
    "linear": OutputKind(),
    "relu": OutputKind.of(nn.ReLU()),
    "tanh": OutputKind.of(nn.Tanh()),
    "pool": OutputKind.of(nn.MaxPool2d(2)),
}


def output_stats(kind: OutputKind, output: Tensor) -> list[float]:
    return sample_stats([sample_of(kind, output.numpy())])[0].tolist()  # type: ignore[no-any-return]


def made(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randn(shape)
    return {"relu": torch.relu, "tanh": torch.tanh}.get(kind, torch.Tensor.clone)(x)


@pytest.mark.parametrize("shape", [(2, 1), (3, 7), (40, 50), (2, 3, 4), (4, 5, 6, 7), (3, 2, 8, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ways_to_the_same_statistics(kind: str, shape: tuple[int, ...]) -> None:
    output = made(kind, shape, 0)
    output[:, 0] = 0.0
    on_host = output_stats(KINDS[kind], output)
    assert len(on_host) == len(COLUMNS)
    assert on_host == pytest.approx(
        output_stats_by_tensors(KINDS[kind], output).tolist(), rel=1e-5, abs=1e-7, nan_ok=True
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_counted(value: float) -> None:
    output = made("relu", (16, 12), 0)
    output[3, 4] = value
    stats = dict(zip(COLUMNS, output_stats(KINDS["relu"], output), strict=True))
    assert stats["output_nonfinite"] == 1
    assert np.isfinite(stats["output_rms"])


def test_what_samples_share_does_not_drown_their_difference() -> None:
    output = 1.0 + 1e-5 * made("linear", (64, 32), 0)
    truth = (output.double() - output.double().mean(0)).square().mean().sqrt().item()
    place = COLUMNS.index("output_signal")
    assert output_stats(KINDS["linear"], output)[place] == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("shape", [(4096, 40), (40, 4096), (16, 70, 96), (64, 24, 28, 28), (9, 600, 7, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_of_large_outputs_a_sample_is_read(kind: str, shape: tuple[int, ...]) -> None:
    output = made(kind, shape, 0)
    found = dict(zip(COLUMNS, output_stats(KINDS[kind], output), strict=True))
    truth = dict(zip(COLUMNS, output_stats_by_tensors(KINDS[kind], output).tolist(), strict=True))
    sample = sampled(output.numpy())
    assert ENOUGH / 2 <= sample.size <= 2 * ENOUGH
    assert len(sample) >= 8
    for exact in ("output_numel", "dead_fraction", "output_nonfinite"):
        assert found[exact] == pytest.approx(truth[exact], nan_ok=True)
    for near in ("output_rms", "output_signal", "zero_fraction", "saturated_fraction"):
        assert found[near] == pytest.approx(truth[near], rel=0.1, abs=0.005, nan_ok=True)
    assert 0.5 * truth["output_abs_max"] < found["output_abs_max"] <= truth["output_abs_max"]


def test_a_unit_that_one_sample_awakes_is_not_dead() -> None:
    output = torch.zeros(4096, 32)
    output[1:].relu_()
    output[77, :] = 1.0
    assert output_stats(KINDS["relu"], output)[COLUMNS.index("dead_fraction")] == 0.0


def test_a_sample_holds_many_of_the_batch_and_many_units() -> None:
    assert sampled(np.zeros((128, 256))).shape == (32, 64)
    assert sampled(np.zeros((8, 64, 128))).shape == (8, 8, 32)
    assert sampled(np.zeros((7, 9))).shape == (7, 9)
