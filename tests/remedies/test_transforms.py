"""Transforms with a memory, and those that act on every step, against their published formulas."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, SetupError, UsageError
from steadygrad.remedies import (
    Gradients,
    GradientTransform,
    centralize_gradients,
    clip_by_quantile,
    clip_by_running_norm,
    clip_by_zscore,
    clip_spikes,
    gradient_noise,
    normalize_gradients,
    skip_nonfinite,
    skip_spikes,
    zero_nonfinite,
)


class Run:
    """Feeds gradients of given norms, one parameter of two entries, and keeps the norms that come out."""

    def __init__(self, transform: GradientTransform) -> None:
        self.transform = transform
        self.parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.state = transform.init([self.parameter])

    def __call__(self, norms: Iterable[float]) -> list[float | None]:
        return [self.step(torch.tensor([0.6, 0.8], dtype=torch.float64) * norm) for norm in norms]

    def step(self, gradient: Tensor) -> float | None:
        self.parameter.grad = gradient.clone()
        with torch.no_grad():
            gradients = Gradients([self.parameter])
            self.state = self.transform.update(gradients, self.state, [self.parameter])
            gradients.write()
        return None if gradients.skip else self.parameter.grad.norm().item()


def lognormal(count: int, seed: int = 0) -> list[float]:
    norms = np.random.default_rng(seed).lognormal(size=count)
    norms[count // 2] *= 100
    return norms.tolist()


def test_autoclip_clips_at_the_percentile_of_what_it_has_seen() -> None:
    norms = lognormal(60)
    expected = [min(norm, np.percentile(norms[: i + 1], 10)) for i, norm in enumerate(norms)]
    assert Run(clip_by_quantile(10.0))(norms) == pytest.approx(expected)


def test_autoclip_forgets_what_lies_beyond_its_history() -> None:
    assert Run(clip_by_quantile(50.0, history=3))([1.0, 1.0, 1.0, 8.0, 8.0, 8.0])[-1] == pytest.approx(8.0)


def test_zclip_follows_the_published_algorithm() -> None:
    norms, warmup, alpha, z_threshold = lognormal(80), 10, 0.9, 2.0
    mean, variance = np.mean(norms[:warmup]), np.var(norms[:warmup])
    expected = norms[:warmup]
    for norm in norms[warmup:]:
        std = math.sqrt(variance)
        z = (norm - mean) / (std + 1e-6)
        clipped = mean + z_threshold * std / (z / z_threshold) if z > z_threshold else norm
        mean = alpha * mean + (1 - alpha) * clipped
        variance = alpha * variance + (1 - alpha) * (clipped - mean) ** 2
        expected.append(clipped)
    found = Run(clip_by_zscore(z_threshold, decay=alpha, warmup=warmup))(norms)
    assert found == pytest.approx(expected)
    assert found != pytest.approx(norms)


def test_adagc_follows_the_published_algorithm() -> None:
    norms, warmup, beta, ratio = lognormal(60), 10, 0.9, 1.05
    gamma, expected = math.inf, []
    for step, norm in enumerate(norms, start=1):
        if step < warmup:
            clipped = min(norm, 1.0)
            gamma = min(gamma, clipped)
        else:
            clipped = min(norm, ratio * gamma)
            gamma = beta * gamma + (1 - beta) * clipped
        expected.append(clipped)
    assert Run(clip_by_running_norm(ratio, decay=beta, warmup=warmup))(norms) == pytest.approx(expected)


def test_adagc_reports_ratios_to_a_mean_that_it_has() -> None:
    run = Run(clip_by_running_norm(2.0, warmup=3))
    run([8.0, 0.5, 0.5, 0.5, 2.0])
    assert run.state["recent"] == pytest.approx([1.0, 1.0, 4.0])


def test_percentiles_may_follow_the_step() -> None:
    norms = lognormal(60)
    wanted = [60 if i < 20 else 10 for i in range(60)]
    expected = [min(norm, np.percentile(norms[: i + 1], wanted[i])) for i, norm in enumerate(norms)]
    assert Run(clip_by_quantile(lambda step: 60 if step < 20 else 10))(norms) == pytest.approx(expected)
    with pytest.raises(UsageError, match=r"clip_by_quantile: expected percentile above 0 and below 100, got 100"):
        Run(clip_by_quantile(lambda step: 100))([1.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda bound: clip_by_zscore(bound, warmup=10),
        lambda bound: clip_by_running_norm(bound, warmup=10, warmup_norm=1e9),
        lambda bound: clip_spikes(bound, warmup=10),
        lambda bound: skip_spikes(bound, window=20),
    ],
)
def test_ratios_and_deviations_may_follow_the_step(make) -> None:
    norms = [*lognormal(120)[:50], 500.0]
    run = Run(make(lambda step: 1e9 if step < 40 else 1.5))
    assert run(norms[:40]) == pytest.approx(norms[:40])
    assert run.state["acted"] == 0
    run(norms[40:])
    assert run.state["acted"] > 0
    with pytest.raises(UsageError, match=r"above 0 and finite, got -1"):
        Run(make(lambda step: -1.0))(norms)


def test_spam_clips_entries_against_their_own_past() -> None:
    run = Run(clip_spikes(4.0, decay=0.5, warmup=2))
    for _ in range(3):
        run.step(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert run.state["acted"] == 0
    run.step(torch.tensor([-9.0, 9.0], dtype=torch.float64))
    clipped = math.sqrt(4 * 0.875)  # 1 - 0.5^3, the mean of the squares so far
    torch.testing.assert_close(run.parameter.grad, torch.tensor([-clipped, 9.0], dtype=torch.float64))
    assert run.state["acted"] == 1
    torch.testing.assert_close(
        run.state["squares"][0], torch.tensor([0.5 * 0.875 + 0.5 * 3.5, 40.5], dtype=torch.float64)
    )


def test_steps_that_are_not_finite_are_skipped_until_patience_ends() -> None:
    run = Run(skip_nonfinite(give_up_after=3))
    assert run([1.0, math.nan, math.inf, 2.0, math.nan, math.nan]) == [1.0, None, None, 2.0, None, None]
    with pytest.raises(SetupError, match=r"skip_nonfinite: .* NaN or inf on 3 steps in a row, after 4 others"):
        run([math.inf])


def test_entries_that_are_not_finite_become_zero() -> None:
    run = Run(zero_nonfinite())
    run.step(torch.tensor([math.nan, 2.0], dtype=torch.float64))
    assert run.parameter.grad.tolist() == [0.0, 2.0]
    assert run.step(torch.tensor([-math.inf, 2.0], dtype=torch.float64)) == 2.0


def test_spikes_are_skipped_and_a_new_level_is_taken() -> None:
    run = Run(skip_spikes(6.0, window=8, give_up_after=2))
    usual = [1.0, 1.1, 0.9, 1.0, 1.05]
    assert run([*usual, 50.0, 1.0]) == pytest.approx([*usual, None, 1.0])
    assert run([50.0, 50.0, 50.0, 50.0, 50.0, 50.0]) == pytest.approx([None, None, 50.0, 50.0, 50.0, 50.0])
    assert run([1000.0]) == [None]


def test_centralized_gradients_have_no_mean_in_any_unit() -> None:
    weight, bias = nn.Parameter(torch.zeros(3, 2, 2)), nn.Parameter(torch.zeros(3))
    weight.grad, bias.grad = torch.arange(12.0).view(3, 2, 2), torch.arange(3.0)
    with torch.no_grad():
        centralize_gradients().update(Gradients([weight, bias]), {}, [weight, bias])
    assert weight.grad[0].tolist() == [[-1.5, -0.5], [0.5, 1.5]]
    torch.testing.assert_close(weight.grad.mean((1, 2)), torch.zeros(3))
    assert bias.grad.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("over", "expected"), [("all", [0.6, 0.8]), ("each", [1.0, 1.0])])
def test_normalized_gradients_have_norm_one(over, expected: list[float]) -> None:
    owners = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    for owner, value in zip(owners, (3e-30, 4e-30, 0.0), strict=True):
        owner.grad = torch.tensor([value])
    with torch.no_grad():
        gradients = Gradients(owners)
        normalize_gradients(over).update(gradients, {}, owners)
        gradients.write()
    assert [owner.grad.item() for owner in owners] == pytest.approx([*expected, 0.0])


def test_noise_has_the_published_variance_and_its_own_stream() -> None:
    owner = nn.Parameter(torch.zeros(40_000))
    transform = gradient_noise(0.3, seed=1)
    state, draws = transform.init([owner]), []
    for _ in range(4):
        owner.grad = torch.zeros(40_000)
        with torch.no_grad():
            state = transform.update(Gradients([owner]), state, [owner])
        draws.append(owner.grad)
    for step, draw in enumerate(draws):
        assert draw.var().item() == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.03)
        assert abs(draw.mean().item()) < 0.01
    correlation = torch.corrcoef(torch.stack(draws)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("make", [gradient_noise, lambda: clip_spikes(warmup=1)])
def test_what_needs_every_entry_refuses_sparse_gradients(make) -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 3])).sum().backward()
    transform = make()
    with torch.no_grad(), pytest.raises(NotApplicableError, match=r"expected dense gradients, got a sparse one"):
        transform.update(Gradients([embedding.weight]), transform.init([embedding.weight]), [embedding.weight])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clip_by_quantile(0.0), r"clip_by_quantile: expected percentile above 0 and below 100, got 0"),
        (lambda: clip_by_quantile(history=0), r"expected history to be a whole number of at least 1, got 0"),
        (lambda: clip_by_zscore(decay=1.0), r"clip_by_zscore: expected decay above 0 and below 1, got 1"),
        (lambda: clip_by_running_norm(ratio=-1.0), r"expected ratio above 0 and finite, got -1"),
        (lambda: normalize_gradients("some"), r"expected over to be 'all' or 'each', got 'some'"),
        (lambda: gradient_noise(0.0), r"gradient_noise: expected eta above 0 and finite, got 0"),
    ],
)
def test_settings_out_of_range(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
