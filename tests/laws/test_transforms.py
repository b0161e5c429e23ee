"""Properties of gradient transforms that hold for any gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from steadygrad.remedies import (
    Gradients,
    GradientTransform,
    adaptive_clip,
    chain,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_parameter_norm,
    clip_by_value,
    global_norm,
    project_gradients,
)

seeds = st.integers(0, 2**31)
exponents = st.floats(-30, 30)
shapes = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=4)
quick = settings(max_examples=30, deadline=None)

BOUNDED = {
    "value": clip_by_value,
    "global norm": clip_by_global_norm,
    "parameter norm": clip_by_parameter_norm,
    "block RMS": clip_by_block_rms,
    "L1 ball": lambda c: project_gradients(c, norm="l1"),
}
every_bound = pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)


def draw(shapes: list[list[int]], seed: int, exponent: float) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for shape in shapes:
        parameters.append(nn.Parameter(torch.randn(shape, generator=generator)))
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0**exponent
        parameters[-1].grad = gradient.float()
    return parameters


def flat(parameters: list[nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.grad.double().flatten() for parameter in parameters])


def apply(transform: GradientTransform, parameters: list[nn.Parameter]) -> None:
    with torch.no_grad():
        gradients = Gradients(parameters)
        transform.update(gradients, transform.init(parameters), parameters)
        gradients.write()


@quick
@given(shapes, seeds, exponents, exponents)
def test_clipping_bounds_the_norm_and_keeps_the_direction(shapes, seed, exponent, bound) -> None:
    parameters = draw(shapes, seed, exponent)
    before = flat(parameters)
    apply(clip_by_global_norm(10.0**bound), parameters)
    after = flat(parameters)
    assert after.norm() <= min(before.norm(), 10.0**bound) * (1 + 1e-6)
    assert torch.dot(before / before.norm(), after / after.norm()).item() == pytest.approx(1.0, abs=1e-6)


@every_bound
@quick
@given(shapes, seeds, exponents, exponents)
def test_a_second_time_changes_nothing_and_no_entry_grows_or_turns(make, shapes, seed, exponent, bound) -> None:
    parameters = draw(shapes, seed, exponent)
    before = flat(parameters)
    apply(make(10.0**bound), parameters)
    once = flat(parameters)
    assert (once.abs() <= before.abs()).all()
    assert (once * before >= 0).all()
    apply(make(10.0**bound), parameters)
    torch.testing.assert_close(flat(parameters), once, rtol=2e-6, atol=2e-6 * once.abs().max().item())


@every_bound
@quick
@given(shapes, seeds, exponents)
def test_gradients_within_the_bound_stay_bit_for_bit(make, shapes, seed, exponent) -> None:
    parameters = draw(shapes, seed, exponent)
    before = flat(parameters)
    apply(make(before.abs().sum().item() * 1.01), parameters)
    assert torch.equal(flat(parameters), before)


@every_bound
@quick
@given(shapes, seeds, exponents, st.floats(-3, 3))
def test_clips_follow_the_scale_of_the_gradients(make, shapes, seed, exponent, power) -> None:
    factor = 2.0 ** round(power)  # exact in floating point
    plain, scaled = draw(shapes, seed, exponent), draw(shapes, seed, exponent)
    for parameter in scaled:
        parameter.grad *= factor
    norm = global_norm(p.grad for p in plain)
    assert norm == pytest.approx(flat(plain).norm().item(), rel=1e-6)
    assert global_norm(p.grad for p in scaled) == pytest.approx(norm * factor, rel=1e-6)
    apply(make(norm / 3), plain)
    apply(make(norm / 3 * factor), scaled)
    scale = flat(plain).abs().max().item()
    torch.testing.assert_close(flat(scaled) / factor, flat(plain), rtol=1e-5, atol=1e-6 * scale)


@quick
@given(shapes, seeds, exponents, st.floats(1e-4, 10))
def test_adaptive_clipping_bounds_the_ratio_of_every_unit(shapes, seed, exponent, ratio) -> None:
    parameters = draw(shapes, seed, exponent)
    apply(adaptive_clip(ratio), parameters)
    for parameter in parameters:
        units = slice(None) if parameter.dim() > 1 else None
        gradient, weight = parameter.grad[units].flatten(1).double(), parameter.detach()[units].flatten(1).double()
        limits = ratio * weight.norm(dim=1).clamp(min=1e-3)
        assert (gradient.norm(dim=1) <= limits * (1 + 1e-5)).all()


@quick
@given(shapes, seeds, exponents, st.lists(st.floats(-3, 3), min_size=1, max_size=4))
def test_a_chain_of_norm_clips_is_the_tightest_one(shapes, seed, exponent, bounds) -> None:
    many, one = draw(shapes, seed, exponent), draw(shapes, seed, exponent)
    norm = global_norm(p.grad for p in one)
    apply(chain(*(clip_by_global_norm(norm * 10.0**bound) for bound in bounds)), many)
    apply(clip_by_global_norm(norm * 10.0 ** min(bounds)), one)
    torch.testing.assert_close(flat(many), flat(one), rtol=2e-6, atol=0)


@quick
@given(shapes, seeds, exponents, st.sampled_from([2.0**-10, 8.0, 65536.0]), st.floats(-2, 2))
def test_a_loss_scale_changes_nothing(shapes, seed, exponent, scale, bound) -> None:
    plain, scaled = draw(shapes, seed, exponent / 2), draw(shapes, seed, exponent / 2)
    for parameter in scaled:
        parameter.grad *= scale
    transform = chain(clip_by_parameter_norm(10.0**bound), clip_by_value(0.1), clip_by_global_norm(10.0**bound / 2))
    for parameters, loss_scale in ((plain, 1.0), (scaled, scale)):
        with torch.no_grad():
            gradients = Gradients(parameters, loss_scale)
            transform.update(gradients, transform.init(parameters), parameters)
            left = gradients.write(all_but_one=True)
        assert left > 0
        for parameter in parameters:
            parameter.grad *= left
    assert math.isfinite(global_norm(p.grad for p in plain))
    torch.testing.assert_close(flat(scaled), flat(plain), rtol=1e-5, atol=0)
