"""Steps by copies, steps recovered from Adam's moments, and the code for devices: one truth, three ways to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.monitor import Monitor, adam_steps, optimizer_tap
from steadygrad.monitor.adam_steps import AdamSteps
from steadygrad.monitor.buffers import DeviceBuffer
from steadygrad.monitor.norms import norms_of

from .networks import batch, mlp, shown, train

ADAMS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adam with decay": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.95), eps=1e-4),
    "adamw with strong decay": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=2.0),
    "maximize": lambda p: torch.optim.AdamW(p, lr=1e-2, maximize=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
}


@pytest.mark.parametrize("kind", ADAMS)
def test_the_recovered_step_is_the_one_that_was_made(kind: str) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(300, 200))
    optimizer = ADAMS[kind]([parameter])
    steps = AdamSteps(optimizer)
    for _ in range(3):
        before = parameter.detach().double().clone()
        parameter.grad = torch.randn_like(parameter)
        assert steps.tells([parameter]) == {0}
        optimizer.step()
        weights, moved = steps.sums(parameter)
        assert weights == pytest.approx(before.square().sum().item(), rel=1e-5)
        assert moved == pytest.approx((parameter.detach().double() - before).square().sum().item(), rel=1e-4)


def test_what_cannot_be_recovered_is_copied() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.zeros(3)

    class Own(torch.optim.AdamW):
        pass

    for optimizer in (
        torch.optim.SGD([parameter], lr=0.1),
        torch.optim.AdamW([parameter], amsgrad=True),
        Own([parameter]),
    ):
        assert not AdamSteps(optimizer).tells([parameter])


def test_steps_near_the_rounding_of_the_weights_are_told_by_copies() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 1)
        before = model[0].weight.detach().clone()
        train(model, optimizer, 1)
    moved = (model[0].weight.detach() - before).norm() / before.norm()
    assert shown(monitor, "update_ratio")["0"] == pytest.approx(moved.item(), rel=1e-5)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("clip", [False, True])
def test_the_code_for_devices_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch, every: int, clip: bool) -> None:
    def watched() -> Monitor:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        clipping = lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1) if clip else None  # noqa: E731
        with Monitor(model, optimizer, every=every) as monitor:
            train(model, optimizer, 4, before_step=clipping)
        return monitor

    expected = watched()
    monkeypatch.setattr(optimizer_tap, "HostBuffer", lambda _, weights, wanted: DeviceBuffer(weights, wanted))
    monkeypatch.setattr(
        optimizer_tap, "isinstance", lambda value, kind: type(value).__name__ == kind.__name__, raising=False
    )
    monitor = watched()
    for statistic in ("grad_norm", "grad_norm_used", "weight_rms", "update_ratio", "grad_nonfinite"):
        assert shown(monitor, statistic) == pytest.approx(shown(expected, statistic), rel=1e-5), statistic


def test_a_closure_brings_its_gradients_to_a_device_too() -> None:
    weights = [torch.randn(3, 5), torch.randn(7)]
    buffer = DeviceBuffer(weights, [True, False])
    buffer.write(1, torch.full((7,), float("nan")))
    assert buffer.arrived()[1].tolist() == [0, 7]
    buffer.keep(weights)
    before, moved = buffer.compare([weights[0] + 1, weights[1]])
    assert before[0, 0].item() == pytest.approx(weights[0].double().square().sum().item())
    assert moved[0, 0].item() == pytest.approx(15.0, rel=1e-5)
    assert before[0, 1].isnan()
    assert not buffer.fits(1, torch.zeros(6))


def test_attached_again_it_goes_on() -> None:
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = Monitor(model, optimizer, every=2)
    for _ in range(2):
        with monitor:
            train(model, optimizer, 3)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert monitor.history.steps.tolist() == [0, 2, 3, 5]
    assert monitor.steps == 6
    assert monitor.history.layers == ("0", "1", "2", "3", "4", "5", "6")


def test_without_numba_weights_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.zeros(3)
    adam_steps._compiled.cache_clear()
    try:
        assert AdamSteps(torch.optim.AdamW([parameter])).tells([parameter]) == set()
    finally:
        adam_steps._compiled.cache_clear()


@pytest.mark.parametrize("entry", [0.0, 1e-30, 1.0, 1e30])
def test_norms_read_together_are_those_read_one_by_one(entry: float) -> None:
    tensors = [torch.full((5,), entry), torch.full((3, 4), entry), torch.full((7,), entry), torch.full((9000,), entry)]
    together = norms_of([*tensors, None])
    truth = [tensor.double().norm().item() for tensor in tensors]
    assert [norm for norm, _ in together] == pytest.approx([*truth, float("nan")], rel=1e-6, nan_ok=True)
    assert [bad for _, bad in together] == [0] * 5


def test_one_vector_that_is_not_finite_leaves_the_others_their_norms() -> None:
    broken = torch.tensor([3.0, float("inf"), 4.0])
    assert norms_of([torch.ones(4), broken, torch.ones(9)]) == [(2.0, 0), (5.0, 1), (3.0, 0)]


def test_by_default_looks_stand_further_apart_as_the_training_goes_on() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, optimizer) as monitor:
        for _ in range(700):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    steps = monitor.history.steps.tolist()
    assert steps[:13] == [*range(0, 110, 10), 111, 123]
    assert {after - before for before, after in pairwise(steps) if before >= 500} == {50}


def test_what_changes_weights_between_two_steps_does_not_count_as_a_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 2)
        model[0].weight.data.mul_(0.5)
        before = model[0].weight.detach().clone()
        train(model, optimizer, 1)
    ratio = (model[0].weight.detach() - before).norm() / before.norm()
    assert shown(monitor, "update_ratio")["0"] == pytest.approx(ratio.item(), rel=1e-4)
