from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import UsageError
from steadygrad.remedies import (
    SoftThreshold,
    WeightDecay,
    add_weights,
    after_step,
    attach,
    compose,
    l1_penalty,
    l2_penalty,
    make,
    optimizer,
    weight_decay,
)
from steadygrad.remedies.with_transforms import gradient_transforms

GENERATOR = torch.Generator()


def pair() -> tuple[nn.Parameter, torch.Tensor]:
    """A weight and a gradient."""
    GENERATOR.manual_seed(0)
    return nn.Parameter(torch.randn(4, 3, generator=GENERATOR)), torch.randn(4, 3, generator=GENERATOR)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_l2_equals_torchs_coupled_weight_decay_bit_for_bit(kind) -> None:
    (ours, gradient), (theirs, _) = pair(), pair()
    built, reference = kind([ours], lr=0.1, foreach=False), kind([theirs], lr=0.1, weight_decay=0.3, foreach=False)
    attach(built, add_weights(0.3))
    for _ in range(3):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        built.step()
        reference.step()
    assert torch.equal(ours, theirs)


def test_decay_differs_from_adamw_in_second_order_of_the_rate_alone() -> None:
    gaps = []
    for lr in (1e-2, 1e-3):
        (ours, gradient), (theirs, _) = (tuple(t.double() for t in pair()) for _ in range(2))
        ours, theirs = nn.Parameter(ours), nn.Parameter(theirs)
        built, reference = torch.optim.Adam([ours], lr=lr), torch.optim.AdamW([theirs], lr=lr, weight_decay=0.5)
        after_step(built, WeightDecay(0.5))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        built.step()
        reference.step()
        gaps.append((ours - theirs).abs().max().item())
    assert gaps[0] == pytest.approx(0.5 * 1e-2**2, rel=1e-3)  # lr * strength * step, and Adam's first step is lr
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=1e-3)


def test_the_proximal_step_minimizes_what_it_should_and_reaches_zero() -> None:
    weight, _ = pair()
    before = weight.detach().clone()
    SoftThreshold(2.0)([weight], 0.25)
    expected = before.sign() * (before.abs() - 0.5).clamp(min=0)
    torch.testing.assert_close(weight.detach(), expected)
    assert (weight == 0).any()
    assert (weight != 0).any()
    grid = torch.linspace(-4, 4, 8001)
    objective = (grid[:, None] - before.flatten()) ** 2 / 2 + 0.5 * grid.abs()[:, None]
    torch.testing.assert_close(grid[objective.argmin(0)].view_as(weight), weight.detach(), atol=1e-3, rtol=0)


def test_biases_do_not_shrink() -> None:
    model = nn.Linear(3, 2)
    before = model.bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built = torch.optim.SGD(model.parameters(), lr=0.0)
    attach(built, add_weights(1.0))
    built.step()
    WeightDecay(1.0)(list(model.parameters()), 0.1)
    SoftThreshold(1.0)(list(model.parameters()), 0.1)
    assert torch.equal(model.bias, before)
    assert model.bias.grad.eq(0).all()
    assert model.weight.grad.ne(0).all()


def test_a_second_penalty_replaces_the_first_and_leaves_other_transforms(make_setup, mlp) -> None:
    setup = l2_penalty(strength=0.2)(make("clip_by_global_norm")(l2_penalty(strength=0.1)(make_setup(mlp()))))
    setup = optimizer(name="sgd")(setup)
    made = [each() for each in gradient_transforms(pickle.loads(pickle.dumps(setup.optimizer)))]
    assert [transform.name for transform in made] == ["clip_by_global_norm", "add_weights"]
    assert gradient_transforms(setup.optimizer)[-1].keywords == {"strength": 0.2}


@pytest.mark.parametrize(
    "order",
    [(weight_decay(strength=1.0), make("skip_nonfinite")), (make("skip_nonfinite"), weight_decay(strength=1.0))],
)
def test_a_step_that_a_transform_skips_shrinks_nothing(make_setup, mlp, order) -> None:
    setup = compose(*order)(make_setup(mlp()))
    weight = nn.Parameter(torch.ones(2, 2))
    built = setup.optimizer([weight])
    weight.grad = torch.full((2, 2), torch.nan)
    built.step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_refusals(make_setup, mlp) -> None:
    for remedy, name in ((l1_penalty, "SoftThreshold"), (l2_penalty, "add_weights"), (weight_decay, "WeightDecay")):
        with pytest.raises(UsageError, match=rf"{name}: expected strength of 0 or above, got -1"):
            remedy(strength=-1)(make_setup(mlp()))
