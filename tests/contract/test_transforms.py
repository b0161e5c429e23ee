"""Every gradient transform passes one suite; a new one is a line in ``CASES`` of ``transforms.py``."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from steadygrad.remedies import CATALOGUE, Gradients, GradientTransform, Site, attach

from . import loops
from .loops import Way
from .transforms import CASES, STEPS, loss_of, network, train_by_hand

every_transform = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
plain_sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
fused_adamw = partial(torch.optim.AdamW, lr=0.01, fused=True)
OPTIMIZERS = {"SGD": plain_sgd, "fused AdamW": fused_adamw}
every_optimizer = pytest.mark.parametrize("optimizer_of", OPTIMIZERS.values(), ids=OPTIMIZERS)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def train(
    transform: GradientTransform, optimizer_of: Callable[..., torch.optim.Optimizer], way: Way = loops.plain
) -> list[Tensor]:
    """Train with the transform attached."""
    model = network()
    optimizer = optimizer_of(model.parameters())
    attach(optimizer, transform)
    advance = way(model, optimizer)
    for step in range(STEPS):
        advance(step)
    return weights(model)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-7)


def feed(
    transform: GradientTransform, gradients: list[list[Tensor]], values: list[Tensor]
) -> list[list[Tensor] | None]:
    """Apply a transform to gradients step by step; None where it skips."""
    parameters = [nn.Parameter(value.clone()) for value in values]
    state = transform.init(parameters)
    found: list[list[Tensor] | None] = []
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        with torch.no_grad():
            current = Gradients(parameters)
            state = transform.update(current, state, parameters)
            current.write()
        found.append(None if current.skip else [parameter.grad for parameter in parameters])
    return found


def draws(steps: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (4,), (2, 3, 2)]
    return [[torch.randn(s, generator=generator).to(dtype) * scale for s in shapes] for _ in range(steps)]


def test_the_table_misses_no_transform() -> None:
    assert {name for name, factory in CATALOGUE.items() if factory.card.site is Site.GRADIENT} <= set(CASES)


@every_transform
@every_optimizer
def test_attached_it_gives_the_numbers_of_a_training_by_hand(make, optimizer_of) -> None:
    by_hand = train_by_hand(make(), optimizer_of)
    assert_same(train(make(), optimizer_of), by_hand)
    without = train_by_hand(GradientTransform(lambda _: {}, lambda g, s, p: s, "nothing"), optimizer_of)
    acts = not all(torch.equal(a, b) for a, b in zip(by_hand, without, strict=True))
    assert acts or "nonfinite" in make().name


@every_transform
@every_optimizer
@pytest.mark.parametrize("way", [loops.scaled, loops.unscaled, loops.accumulated, loops.closed])
def test_every_way_to_step_gives_the_same_numbers(make, optimizer_of, way: Way) -> None:
    assert_same(train(make(), optimizer_of, way), train_by_hand(make(), optimizer_of))


@every_optimizer
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("chain", "skip_spikes") else [pytest.mark.slow]) for n in CASES]
)
def test_a_compiled_step_gives_the_same_numbers(name: str, optimizer_of) -> None:
    found = train(CASES[name](), optimizer_of, loops.compiled)
    assert_same(found, train_by_hand(CASES[name](), optimizer_of))


@every_transform
@every_optimizer
def test_it_resumes_exactly_from_a_saved_state(make, optimizer_of) -> None:
    expected = train(make(), optimizer_of)
    model = network()
    optimizer = optimizer_of(model.parameters())
    attach(optimizer, make())
    advance = loops.plain(model, optimizer)
    for step in range(STEPS // 2):
        advance(step)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for step in range(STEPS // 2, STEPS):  # a saved state is a copy: going on must not change it
        advance(step)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model = network()
    optimizer = optimizer_of(model.parameters())
    attach(optimizer, make())
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    advance = loops.plain(model, optimizer)
    for step in range(STEPS // 2, STEPS):
        advance(step)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), expected, strict=True))


@every_transform
def test_a_copy_of_the_optimizer_goes_on_alike_and_apart(make) -> None:
    model = network()
    optimizer = fused_adamw(model.parameters())
    attach(optimizer, make())
    advance = loops.plain(model, optimizer)
    for step in range(4):
        advance(step)
    copied_model, copied = copy.deepcopy((model, optimizer))
    for both in (loops.plain(copied_model, copied), advance):
        for step in range(4, STEPS):
            both(step)
    assert_same(weights(copied_model), weights(model))


@every_transform
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_identity_parameters_and_random_state_are_kept(make, dtype: torch.dtype) -> None:
    parameters = [nn.Parameter(value) for value in draws(1, dtype)[0]]
    before, random = [parameter.detach().clone() for parameter in parameters], torch.get_rng_state()
    transform = make()
    state = transform.init(parameters)
    kept = copy.deepcopy(state)
    for gradients in draws(6, dtype):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            current = Gradients(parameters)
            first, state = state, transform.update(current, state, parameters)
            current.write()
        assert all(p.grad is g for p, g in zip(parameters, gradients, strict=True))
        assert all(g.dtype is dtype and g.isfinite().all() for g in gradients)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    torch.testing.assert_close(transform.init(parameters), kept, equal_nan=True)
    assert first is not state or not state


@every_transform
def test_weights_of_zero_learn_even_after_steps_without_a_gradient(make) -> None:
    steps = [[torch.zeros_like(t) for t in draws(1)[0]]] * 4 + draws(
        200
    )  # onto the L1 ball few entries get through at a time
    values = [torch.zeros_like(t) for t in steps[0]]
    parameters_moved = [torch.zeros_like(t) for t in values]
    for gradients in feed(make(), steps, values):
        if gradients is not None:
            parameters_moved = [moved + g.abs() for moved, g in zip(parameters_moved, gradients, strict=True)]
    assert all((moved > 0).all() for moved in parameters_moved)


@every_transform
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_step_leaves_no_trace_on_later_ones(make, bad: float) -> None:
    steps, values = draws(12), draws(1)[0]
    steps[5] = [torch.full_like(t, bad) for t in steps[5]]
    found = feed(make(), steps, values)
    skipped = found[5] is None  # then it never was, else it counts as a step of zeros
    steps[5:6] = [] if skipped else [[torch.zeros_like(t) for t in values]]
    expected = feed(make(), steps, values)
    for after, without in zip(found[6:], expected[5 if skipped else 6 :], strict=True):
        assert (after is None) == (without is None)
        for a, b in zip(after or (), without or (), strict=True):
            assert a.isfinite().all()
            # Only the running mean of squares also follows zeros, by a thousandth.
            torch.testing.assert_close(a, b, rtol=2e-3 if "clip_spikes" in make().name else 0, atol=0)


@every_transform
def test_it_trains_under_autocast(make) -> None:
    model = network(zero_head=True)
    optimizer = plain_sgd(model.parameters())
    attach(optimizer, make())
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    assert (model[-1].weight != 0).any()


@every_optimizer
def test_steps_that_a_grad_scaler_skips_do_not_count(optimizer_of) -> None:
    model = network()
    optimizer = optimizer_of(model.parameters())
    attachment = attach(optimizer, CASES["chain"]())
    before = copy.deepcopy(attachment.state)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    (scaler.scale(loss_of(model, 0)) * math.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(attachment.state, before, equal_nan=True)
    assert not {"grad_scale", "found_inf"} & set(vars(optimizer))
    assert_same(weights(model), weights(network()))
