from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import (
    ClipWeights,
    MaxNorm,
    SoftThreshold,
    WeightDecay,
    after_step,
    clip_weights,
    learning_rate,
    max_norm,
    optimizer,
    weight_decay,
)
from steadygrad.remedies.constraints import weight_steps
from steadygrad.training import Training

SGD = partial(torch.optim.SGD, lr=0.1)


def network(std: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def train(model: nn.Module, built: torch.optim.Optimizer, steps: int = 3) -> list[torch.Tensor]:
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        built.zero_grad()
        model(x).square().mean().backward()
        built.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_units_are_projected_onto_the_ball_and_stay_there_bit_for_bit() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
    step = MaxNorm(1.0)
    with torch.no_grad():
        step([weight], 0.1)
        once = weight.clone()
        step([weight], 0.1)
    torch.testing.assert_close(once, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert torch.equal(weight, once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_max_norm_equals_torchs_renorm(dtype: torch.dtype) -> None:
    weight = torch.randn(7, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours = nn.Parameter(weight.clone())
    with torch.no_grad():
        MaxNorm(4.0)([ours], 0.1)
    assert (ours != weight).any()
    assert (ours == weight).flatten(1).all(1).any()
    torch.testing.assert_close(ours.detach(), torch.renorm(weight, 2, 0, 4.0))


def test_a_layer_is_projected_as_a_whole() -> None:
    weight = nn.Parameter(torch.full((4, 4), 2.0))
    with torch.no_grad():
        MaxNorm(4.0, over="layer")([weight], 0.1)
    torch.testing.assert_close(weight.detach(), torch.ones(4, 4))


def test_huge_rows_are_scaled_where_renorm_gives_zeros_and_broken_ones_harm_no_other() -> None:
    rows = torch.tensor([[1e30, 1e30], [math.nan, 1.0], [math.inf, 1.0], [3.0, 4.0]])
    weight = nn.Parameter(rows.clone())
    with torch.no_grad():
        MaxNorm(1.0)([weight], 0.1)
    assert torch.renorm(rows, 2, 0, 1.0)[0].eq(0).all()
    torch.testing.assert_close(weight[0].detach(), torch.full((2,), 0.5**0.5))
    torch.testing.assert_close(weight[1:3].detach(), rows[1:3], equal_nan=True)
    torch.testing.assert_close(weight[3].detach(), torch.tensor([0.6, 0.8]))


def test_every_weight_is_clipped_and_biases_have_no_norm() -> None:
    model = network(std=10.0)
    before = model[0].bias.detach().clone()
    with torch.no_grad():
        MaxNorm(0.1)(list(model.parameters()), 0.1)
        assert torch.equal(model[0].bias, before)
        ClipWeights(0.01)(list(model.parameters()), 0.1)
    assert all(parameter.abs().max() <= 0.01 for parameter in model.parameters())


def test_a_handle_takes_the_step_off_again_exactly() -> None:
    plain, held = network(), network()
    built = SGD(held.parameters())
    handle = after_step(built, MaxNorm(0.1))
    assert train(held, built, 1)[0].norm(dim=1).max() <= 0.1 * (1 + 1e-6)
    handle.remove()
    held.load_state_dict(plain.state_dict())
    for ours, reference in zip(train(held, built), train(plain, SGD(plain.parameters())), strict=True):
        assert torch.equal(ours, reference)


def test_frozen_weights_and_those_without_a_gradient_are_left_alone() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    built = SGD([used, unused])
    after_step(built, WeightDecay(1.0))
    used.grad = torch.zeros(2, 2)
    built.step()
    assert torch.equal(unused, torch.ones(2, 2))
    torch.testing.assert_close(used.detach(), torch.full((2, 2), 0.9))


def test_each_group_shrinks_by_its_own_rate_and_follows_a_scheduler() -> None:
    first, second = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1, 1))
    built = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": torch.tensor(0.5)}])
    after_step(built, WeightDecay(1.0))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(built, 0.5)
    for _ in range(2):
        first.grad, second.grad = torch.zeros(1, 1), torch.zeros(1, 1)
        built.step()
        scheduler.step()
    assert first.item() == pytest.approx(0.9 * 0.95)
    assert second.item() == pytest.approx(0.5 * 0.75)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_grad_scaler_skips_is_no_step(fused: bool) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    built = torch.optim.SGD([weight], lr=0.1, fused=fused)
    after_step(built, SoftThreshold(1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor, expected in ((math.inf, 1.0), (0.0, 0.9)):
        built.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(built)
        scaler.update()
        torch.testing.assert_close(weight.detach(), torch.full((2, 2), expected))


def test_closures_and_compiled_steps_give_the_same_numbers() -> None:
    reference, closed, compiled = network(), network(), network()
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    built = [SGD(model.parameters()) for model in (reference, closed, compiled)]
    for each in built:
        after_step(each, MaxNorm(0.5))
    expected = train(reference, built[0], 1)

    def closure() -> torch.Tensor:
        built[1].zero_grad()
        loss = closed(x).square().mean()
        loss.backward()
        return loss

    built[1].step(closure)
    compiled(x).square().mean().backward()
    torch._dynamo.reset()
    torch.compile(built[2].step, backend="eager")()
    for model in (closed, compiled):
        for ours, wanted in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(ours.detach(), wanted, rtol=1e-6, atol=1e-7)


def test_a_resumed_training_goes_on_exactly() -> None:
    build = partial(torch.optim.Adam, lr=0.05)
    model = network()
    built = build(model.parameters())
    after_step(built, SoftThreshold(0.1))
    train(model, built)
    again = copy.deepcopy(model)
    resumed = build(again.parameters())
    after_step(resumed, SoftThreshold(0.1))
    resumed.load_state_dict(copy.deepcopy(built.state_dict()))
    for ours, wanted in zip(train(again, resumed), train(model, built), strict=True):
        assert torch.equal(ours, wanted)


def test_steps_survive_a_new_rate_and_a_new_optimizer_and_replace_their_like(make_setup, mlp) -> None:
    setup = weight_decay(strength=0.3)(max_norm(bound=2.0)(make_setup(mlp())))
    setup = max_norm(bound=1.0)(optimizer(name="adam")(learning_rate(lr=0.5)(setup)))
    setup = learning_rate(lr=0.25)(setup)
    factory = pickle.loads(pickle.dumps(setup.optimizer))
    assert weight_steps(factory) == (WeightDecay(0.3), MaxNorm(1.0))
    weight = nn.Parameter(torch.tensor([[300.0, 400.0]]))
    built = factory([weight])
    weight.grad = torch.zeros(1, 2)
    built.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.6, 0.8]]))  # decay alone would leave 462
    built = factory([nn.Parameter(torch.ones(1))])
    assert isinstance(built, torch.optim.Adam)
    assert built.param_groups[0]["lr"] == 0.25
    assert weight_steps(optimizer(name="sgd")(make_setup(mlp())).optimizer) == ()


def test_a_training_keeps_its_weights_within_bounds(make_setup, mlp) -> None:
    training = Training(clip_weights(bound=0.05)(make_setup(mlp())), seed=0)
    training.advance(3)
    assert max(parameter.abs().max().item() for parameter in training.model.parameters()) == pytest.approx(0.05)


def test_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"MaxNorm: expected a set-up with an optimizer, got None"):
        max_norm()(make_setup(mlp(), optimizer=None))
    with pytest.raises(UsageError, match=r"ClipWeights: expected bound above 0 and finite, got 0"):
        clip_weights(bound=0)(make_setup(mlp()))
