"""What is read of outputs: on the host, by tensors alone, and of large ones by a sample; alone and with others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.monitor import Monitor
from steadygrad.monitor.output_stats import COLUMNS, OutputKind, dead_share, output_stats_by_tensors
from steadygrad.monitor.samples import ENOUGH, grad_stats, sample_of, sample_stats, sampled

KINDS = {
    "linear": OutputKind(),
    "relu": OutputKind.of(nn.ReLU()),
    "tanh": OutputKind.of(nn.Tanh()),
    "pool": OutputKind.of(nn.MaxPool2d(2)),
}


def output_stats(kind: OutputKind, output: Tensor) -> list[float]:
    return sample_stats([sample_of(kind, output.numpy())])[0].tolist()


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


@pytest.mark.parametrize("scale", [1e-15, 1e20])
def test_samples_of_any_scale_tell_the_same(scale: float) -> None:
    output = made("linear", (40, 4096), 0)
    plain, scaled = (np.array(output_stats(KINDS["linear"], factor * output)) for factor in (1.0, scale))
    scaled[:4] /= scale
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)


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


@pytest.mark.parametrize("asleep", [0.05, 0.6])
@pytest.mark.parametrize("shape", [(4096, 40), (16, 300, 96), (64, 24, 28, 28), (8, 32, 9, 20, 20), (20, 30)])
def test_dead_units_are_looked_for_in_all_of_an_output(shape: tuple[int, ...], asleep: float) -> None:
    output = made("relu", shape, 1).numpy()
    by_unit = np.moveaxis(output, 1 if len(shape) > 3 else -1, 0)  # a view
    dead = np.random.default_rng(0).random(len(by_unit)) < asleep
    by_unit[dead] = 0.0
    assert dead_share(output) == pytest.approx(dead.mean())
    by_unit[(slice(None), *[-1] * (len(shape) - 1))] = 1.0
    assert dead_share(output) == 0.0  # a single entry awakes its unit


def test_samples_that_are_read_together_give_what_they_give_alone() -> None:
    shapes = [(128, 256), (64, 12, 20, 20), (9, 5), (128, 256), (128, 256), (2, 40, 30), (1, 7)] * 9
    samples = [
        sample_of(kind, made(name, shape, seed).numpy())
        for seed, (shape, (name, kind)) in enumerate(zip(shapes, list(KINDS.items()) * 16, strict=False))
    ]
    together = sample_stats(samples)
    assert np.array_equal(together, [sample_stats([sample])[0] for sample in samples], equal_nan=True)
    grads = [sample.values for sample in samples] + [np.array([1e30, 1e30], np.float32), np.array([np.inf, 3.0])]
    read = grad_stats(grads)
    assert np.array_equal(read, [grad_stats([grad])[0] for grad in grads], equal_nan=True)
    truth = [np.sqrt(np.mean(grad.astype(float)[np.isfinite(grad)] ** 2)) for grad in grads]
    assert read[:, 0] == pytest.approx(truth, rel=1e-6)
    assert read[:, 1].tolist() == [0] * (len(grads) - 1) + [1]


@pytest.mark.parametrize("dimensions", [0, 1])
def test_outputs_without_a_batch(dimensions: int) -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten()[:5000] if dimensions else x.square().mean()

    model = nn.Sequential(nn.Linear(10, 1000), Last())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        model(torch.ones(8, 10)).mul(3.0).sum().backward()
        optimizer.step()
    assert monitor.history.column("output_grad_rms")[0, 1] == pytest.approx(3.0)


def test_a_sample_holds_many_of_the_batch_and_many_units() -> None:
    assert sampled(np.zeros((128, 256))).shape == (32, 64)
    assert sampled(np.zeros((8, 64, 128))).shape == (8, 8, 32)
    assert sampled(np.zeros((7, 9))).shape == (7, 9)
