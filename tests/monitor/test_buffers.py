"""Norms of many tensors, and steps by copies, on a CPU and by the code for devices: one truth, two ways to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steadygrad.monitor import Monitor, buffers, optimizer_tap
from steadygrad.monitor.buffers import DeviceBuffer, HostBuffer
from steadygrad.monitor.norms import squares_of
from steadygrad.records import History
from steadygrad.records.history import LAYER_STATISTICS
from steadygrad.remedies import attach, clip_by_global_norm

from .networks import batch, mlp, shown, train


def test_steps_near_the_rounding_of_the_weights_are_told() -> None:
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
    monkeypatch.setattr(optimizer_tap, "HostBuffer", lambda *args: DeviceBuffer(*args))
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
    buffer.keep(weights, trust=False)
    before, moved = buffer.compare([weights[0] + 1, weights[1]])
    assert before[0].item() == pytest.approx(weights[0].double().square().sum().item())
    assert moved[0].item() == pytest.approx(15.0, rel=1e-5)
    assert before[1].isnan()
    assert not buffer.fits(1, torch.zeros(6))


WEIGHTS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": lambda: torch.randn(300, 50),
    "transposed": lambda: torch.randn(50, 300).t(),
    "channels-last": lambda: torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "float64": lambda: torch.randn(30, 5, dtype=torch.float64),
    "bfloat16": lambda: torch.randn(30, 5).bfloat16(),
    "complex": lambda: torch.randn(30, 5, dtype=torch.complex64),
    "tiny": lambda: 1e-30 * torch.randn(30, 5),
    "huge": lambda: 1e25 * torch.randn(30, 5),
    "empty": lambda: torch.zeros(0, 5),
    "large": lambda: torch.randn(3, 2**17),
    "large and transposed": lambda: torch.randn(2**17, 3).t(),
}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use compiled kernels for few entries, too."""
    pytest.importorskip("numba")
    monkeypatch.setattr(buffers, "kernel_pays", lambda numel, least: True)


def buffer_of(weights: list[Any], wanted: list[bool], request: pytest.FixtureRequest, settled: bool) -> HostBuffer:
    """Return a buffer, ``settled`` to read by kernels."""
    buffer = HostBuffer(weights, wanted)
    if settled:
        request.getfixturevalue("kernels")
        buffer.settle()
    return buffer


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_steps_are_those_made_whatever_the_weights_are(kind: str, settled: bool, request) -> None:
    torch.manual_seed(0)
    weight = WEIGHTS[kind]()
    parameters = [nn.Parameter(weight.clone()), nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))]
    buffer = buffer_of(parameters, [True, True, False], request, settled)
    wide = torch.complex128 if weight.is_complex() else torch.float64
    for factor in (0.5, 0.75, 0.9):
        old = [parameter.detach().clone().to(wide) for parameter in parameters]
        buffer.keep(parameters, trust=settled)
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(factor)
        before, moved = buffer.compare(parameters)
        for index in range(2):
            step = parameters[index].detach().to(wide) - old[index]
            assert before[index] == pytest.approx(old[index].norm().item() ** 2, rel=1e-5)
            assert moved[index] == pytest.approx(step.norm().item() ** 2, rel=1e-5)
        assert all(math.isnan(sums[2]) for sums in (before, moved)), "not asked for"


BETWEEN = {
    "nothing": lambda weight: None,
    "another step": lambda weight: weight.detach().mul_(0.8),
    "through .data": lambda weight: weight.data.mul_(0.8),
    "elsewhere": lambda weight: setattr(weight, "data", weight.data.clone()),
}


@given(between=st.lists(st.sampled_from(list(BETWEEN)), min_size=1, max_size=8), trust=st.booleans())
def test_steps_are_those_made_whatever_happens_between_looks(between: list[str], trust: bool) -> None:
    """With trust, but for what torch does not notice."""
    parameter = nn.Parameter(torch.full((3, 3), 2.0))
    buffer = HostBuffer([parameter], [True])
    for each in between:
        if not (trust and each == "through .data"):
            BETWEEN[each](parameter)
        square = 9 * parameter[0, 0].item() ** 2
        buffer.keep([parameter], trust=trust)
        with torch.no_grad():
            parameter.mul_(0.5)
        before, moved = buffer.compare([parameter])
        assert (before, moved) == (pytest.approx([square]), pytest.approx([square / 4]))


@pytest.mark.parametrize("settled", [False, True])
def test_a_weight_that_is_not_finite_is_left_out_and_the_others_keep_their_steps(settled: bool, request) -> None:
    weights = [torch.tensor([[3.0, float("nan")], [4.0, float("inf")]]), torch.ones(2, 2)]
    buffer = buffer_of(weights, [True, True], request, settled)
    buffer.keep(weights, trust=settled)
    assert buffer.compare([weights[0], weights[1] + 1]) == ([25.0, 4.0], [0.0, 4.0])


@pytest.mark.parametrize("settled", [False, True])
def test_weights_of_another_shape_are_copied_anew(settled: bool, request) -> None:
    parameter = nn.Parameter(torch.ones(4, 4))
    buffer = buffer_of([parameter], [True], request, settled)
    buffer.keep([parameter], trust=settled)
    parameter.data = torch.ones(2, 2)
    buffer.keep([parameter], trust=settled)
    assert buffer.compare([torch.zeros(2, 2)]) == ([4.0], [4.0])
    buffer.keep([parameter], trust=settled)
    with pytest.raises((ValueError, RuntimeError)):
        buffer.compare([torch.ones(3, 3)])


@pytest.mark.parametrize("settled", [False, True])
def test_weights_that_lie_elsewhere_or_in_another_way_are_still_read(settled: bool, request) -> None:
    parameters = [nn.Parameter(torch.randn(400, 400)), nn.Parameter(torch.randn(5))]  # in pieces, and whole
    buffer = buffer_of(parameters, [True, True], request, settled)
    for lay in (torch.clone, torch.clone, lambda data: data.t().contiguous().t(), torch.clone):
        parameters[0].data = lay(parameters[0].data)
        old = [parameter.detach().double() for parameter in parameters]
        buffer.keep(parameters, trust=True)
        with torch.no_grad():
            parameters[0].mul_(0.5)
        before, moved = buffer.compare(parameters)
        truth = old[0].square().sum().item()
        assert before == pytest.approx([truth, old[1].square().sum().item()], rel=1e-5)
        assert moved == pytest.approx([truth / 4, 0.0], rel=1e-5)


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


@pytest.mark.parametrize("entry", [0.0, 1e-30, 3e-19, 1.0, 1.1, 1e30])
def test_norms_read_together_are_those_read_one_by_one(entry: float) -> None:
    tensors = [torch.full((5,), entry), torch.full((3, 4), entry), torch.full((7,), entry), torch.full((2**16,), entry)]
    tensors += [torch.full((2**21,), entry)]
    squares, bad = squares_of([*tensors, None])
    truth = [tensor.double().square().sum().item() for tensor in tensors]
    assert squares == pytest.approx([*truth, float("nan")], rel=1e-4, nan_ok=True)
    assert not any(bad)


def test_one_vector_that_is_not_finite_leaves_the_others_their_norms() -> None:
    broken = torch.tensor([3.0, float("inf"), 4.0])
    assert squares_of([torch.ones(4), broken, torch.ones(9)]) == ([4.0, 25.0, 9.0], [0, 1, 0])


def test_by_default_looks_stand_further_apart_as_the_training_goes_on() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, optimizer) as monitor:
        for _ in range(1300):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    steps = monitor.history.steps.tolist()
    assert steps[:13] == [*range(0, 120, 10), 121]
    assert {after - before for before, after in pairwise(steps) if before >= 1000} == {100}


@pytest.mark.usefixtures("kernels")
def test_compiled_kernels_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched() -> Monitor:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters())
        with Monitor(model, optimizer, every=1) as monitor:
            train(model, optimizer, 35)
        return monitor

    compiled = watched()
    monkeypatch.setattr(buffers, "squares_kernel", lambda: None)
    by_torch = watched()
    for statistic in LAYER_STATISTICS:
        ours, theirs = (monitor.history.column(statistic) for monitor in (compiled, by_torch))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7, err_msg=statistic)
    for statistic in ("update_ratio", "output_rms", "output_grad_rms"):
        assert (compiled.history.column(statistic) != by_torch.history.column(statistic)).any(), "no kernel ran"


@pytest.mark.parametrize("by_kernels", [False, True])
@pytest.mark.parametrize(
    ("change", "late"),
    [
        (lambda weight: weight.data.neg_(), True),
        (lambda weight: weight.detach().neg_(), False),
        (lambda weight: setattr(weight, "data", -weight.data), False),
    ],
)
def test_where_looks_follow_step_by_step_changes_of_weights_between_them_are_no_steps(
    change: Callable[[nn.Parameter], object], late: bool, by_kernels: bool, request
) -> None:
    if by_kernels:
        request.getfixturevalue("kernels")
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 25)
        for _ in range(30):
            change(model[0].weight)
            train(model, optimizer, 1)
    ratios = monitor.history.column("update_ratio")[:, 0]
    wrong = np.flatnonzero(ratios > 1.0)
    assert (25 in wrong) is late
    assert wrong.max(initial=0) < 35 if late else not len(wrong)


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


def test_where_looks_follow_step_by_step_unnoticed_writes_show_within_ten_looks_and_then_always() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 25)
        for _ in range(30):
            train(model, optimizer, 1, before_step=lambda: [p.grad.data.mul_(0.5) for p in model.parameters()])
    shares = monitor.history.column("grad_norm_used", of="step") / monitor.history.column("grad_norm", of="step")
    assert shares[:25] == pytest.approx(1.0)
    halved = np.isclose(shares, 0.5)
    first = int(halved.argmax())
    assert 25 <= first < 35
    assert halved[first:].all()


def test_where_looks_follow_step_by_step_noticed_writes_show_at_once() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(30):
            halve = lambda: [p.grad.mul_(0.5) for p in model.parameters()]  # noqa: E731
            train(model, optimizer, 1, before_step=halve if step in (15, 25) else lambda: None)
    shares = monitor.history.column("grad_norm_used", of="step") / monitor.history.column("grad_norm", of="step")
    assert np.flatnonzero(np.isclose(shares, 0.5)).tolist() == [15, 25]


def test_looks_that_wait_for_each_other_are_there_when_they_are_asked_for() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    told: list[Any] = []
    with (
        Monitor(model, optimizer, every=1) as waiting,
        Monitor(model, optimizer, every=1, sinks=[told.append]) as at_once,
    ):
        for step in range(1, 12):
            train(model, optimizer, 1)
            assert len([event for event in told if event["event"] == "look"]) == step
            if step in (3, 4, 11):
                assert waiting.history.steps.tolist() == at_once.history.steps.tolist() == list(range(step))
    for statistic in ("grad_norm", "update_ratio", "output_rms", "output_grad_rms"):
        assert np.array_equal(waiting.history.column(statistic), at_once.history.column(statistic), equal_nan=True)


def test_a_history_of_another_limit_may_take_the_looks() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = Monitor(model, optimizer, every=1)
    monitor.history = History(limit=2**16)
    with monitor:
        train(model, optimizer, 300)
    assert monitor.history.nbytes <= 2**16
    assert monitor.history.steps[-1] == 299


def test_what_a_fused_kernel_does_to_gradients_shows_at_once() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    attach(optimizer, clip_by_global_norm(lambda step: 1e-3 if step >= 25 else 1e3))
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 28)
    used = monitor.history.column("grad_norm_used", of="step")
    assert np.flatnonzero(used < 2e-3).tolist() == [25, 26, 27]
