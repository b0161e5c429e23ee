"""Properties that hold for any input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from steadygrad.remedies import initialization, orthogonal_, standardize_inputs
from steadygrad.signals.meanfield import activation_by_kind, chi, gain
from steadygrad.training import TrainingSetup, seeded

seeds = st.integers(0, 2**31)
quick = settings(max_examples=60, deadline=None)


@quick
@given(st.integers(1, 12), st.integers(0, 12), seeds, st.sampled_from(["identity", "relu", "tanh", "silu"]))
def test_orthogonal_weights_keep_norms_up_to_the_gain(width, more, seed, activation) -> None:
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        weight = orthogonal_(torch.empty(width + more, width, dtype=torch.float64), activation)
    x = torch.randn(width, generator=generator, dtype=torch.float64)
    assert (weight @ x).norm().item() == pytest.approx(gain(activation) * x.norm().item(), rel=1e-6)


@quick
@given(st.sampled_from(["sigmoid", "tanh", "relu", "gelu", "softplus"]), st.floats(0.05, 4), st.floats(0.1, 10))
def test_gains_undo_a_factor_on_the_activation_and_chi_ignores_it(kind, q, factor) -> None:
    function = activation_by_kind(kind)
    assert gain(lambda x: factor * function(x), q) == pytest.approx(gain(kind, q) / factor, rel=1e-9)
    assert chi(lambda x: factor * function(x), q) == pytest.approx(chi(kind, q), rel=1e-9)
    assert chi(kind, q, centered=True) >= 1 - 1e-9  # E f'^2 >= Var f / q^2 (Gaussian Poincare inequality)


def regression(scale: float, shift: float, seed: int) -> TrainingSetup:
    with seeded(seed):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        x = torch.randn(20, 3, dtype=torch.float64) * scale + shift
    return TrainingSetup(model, nn.functional.mse_loss, (x, torch.zeros(20, 1, dtype=torch.float64)), batch_size=20)


@settings(max_examples=15, deadline=None)
@given(st.floats(-6, 6), st.floats(-100, 100), st.integers(0, 1000))
def test_a_standardized_model_cannot_tell_units(exponent, shift, seed) -> None:
    outputs = []
    for setup in (regression(1.0, 0.0, seed), regression(10.0**exponent, shift, seed)):
        outputs.append(standardize_inputs()(setup).model(setup.train[0]))
    if 10.0**exponent > 1e-5 * abs(shift):  # else the deviation counts as the rounding of a constant
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(-6, 6), st.integers(0, 1000))
def test_lsuv_ignores_the_scale_of_the_inputs(exponent, seed) -> None:
    outputs = []
    for setup in (regression(1.0, 0.0, seed), regression(10.0**exponent, 0.0, seed)):
        with seeded(seed):
            outputs.append(initialization()(setup).model(setup.train[0]))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-6)
    assert math.isclose(outputs[0].std(correction=0).item(), 1.0, rel_tol=1e-3)
