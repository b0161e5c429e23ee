"""A monitored training is bit for bit the unmonitored one, and no fault of the monitor reaches it."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steadygrad.errors import SteadygradWarning, UsageError
from steadygrad.monitor import Monitor, forensics
from steadygrad.records import History
from steadygrad.signals import Recorder

from .networks import mlp, same, shown, train


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(16, 3)
    )


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop])
def test_the_training_is_bit_for_bit_the_same(every: int, kind: type[torch.optim.Optimizer]) -> None:
    plain, watched = network(), network()
    optimizer = kind(plain.parameters(), lr=0.01)
    torch.manual_seed(5)
    losses = train(plain, optimizer, 20)
    optimizer = kind(watched.parameters(), lr=0.01)
    torch.manual_seed(5)
    with Monitor(watched, optimizer, every=every) as monitor:
        assert train(watched, optimizer, 20) == losses
    assert same(plain, watched)
    assert len(monitor.history) == -(-20 // every)
    before = torch.autograd.backward, torch.amp.GradScaler.step
    assert "steadygrad" not in before[0].__module__ + before[1].__module__


def test_detaching_leaves_no_hook_behind() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="the user's own"), Monitor(model, optimizer):
        raise RuntimeError("the user's own")
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_between_looks_no_layer_has_a_hook() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooked = []
    with Monitor(model, optimizer, every=3) as monitor:
        for _ in range(6):
            hooked.append({bool(module._forward_hooks) for module in model.children()})
            train(model, optimizer, 1)
            assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    assert hooked == [{step % 3 == 0} for step in range(6)]
    assert np.isfinite(monitor.history.column("output_grad_rms")).all()
    assert monitor.history.steps.tolist() == [0, 3]


def test_a_watched_model_can_be_copied_and_saved() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        copied = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        train(copied, torch.optim.SGD(copied.parameters(), lr=0.1), 1)
        assert len(monitor.history) == 0
        train(model, optimizer, 1)
    file.seek(0)
    assert same(torch.load(file, weights_only=False), mlp())
    assert len(monitor.history) == 1


def test_a_fault_of_the_monitor_ends_in_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    plain, watched = mlp(), mlp()
    losses = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 6)
    monkeypatch.setattr("steadygrad.monitor.activation_tap.sample_stats", broken)
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.1)
    monitor = Monitor(watched, optimizer, every=1)
    with (
        pytest.warns(SteadygradWarning, match="ZeroDivisionError: a bug of ours") as caught,
        monitor,
    ):
        assert train(watched, optimizer, 6) == losses
    assert len(caught) == 1
    assert same(plain, watched)


def test_a_fault_in_keeping_a_call_ends_the_watch_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(forensics, "on_grad", fail)
    plain, watched = mlp(), mlp()
    losses = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 3)
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.1)
    with pytest.warns(SteadygradWarning, match="ZeroDivisionError: a bug of ours"), Monitor(watched, optimizer):
        assert train(watched, optimizer, 3) == losses
    assert same(plain, watched)


@pytest.mark.slow
def test_ten_thousand_parameter_tensors() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList([nn.Parameter(torch.ones(2)) for _ in range(10_000)])

        def forward(self) -> torch.Tensor:
            return torch.cat(list(self.parts)).sum()

    model = Many()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        model().backward()
        optimizer.step()
    assert shown(monitor, "grad_norm")["parts"] == pytest.approx(20_000**0.5)
    assert shown(monitor, "update_ratio")["parts"] == pytest.approx(0.1)


def test_memory_stays_bounded_and_the_recent_past_dense() -> None:
    history = History([f"layer{k}" for k in range(20)], limit=2**20)
    for step in range(20_000):
        history.append(step, {"loss": 1.0}, {"grad_norm": np.ones(20)})
    assert history.nbytes <= 2**20
    assert np.diff(history.steps)[-100:].max() == 1
    assert history.steps[0] == 0


def test_names_from_any_script() -> None:
    model = nn.ModuleDict({"<b>größe": nn.Linear(3, 3), "a b/c": nn.Linear(3, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        model["a b/c"](model["<b>größe"](torch.ones(2, 3))).sum().backward()
        optimizer.step()
    assert set(shown(monitor, "grad_norm")) == {"<b>größe", "a b/c"}


def test_wrong_use_is_told() -> None:
    model = mlp()
    with pytest.raises(UsageError, match="every to be a whole number of at least 1, got 0"):
        Monitor(model, every=0)
    with pytest.raises(UsageError, match="on_alarm to be"):
        Monitor(model, on_alarm="shout")
    with pytest.raises(UsageError, match="optimizer to be of type Optimizer, got int"):
        Monitor(model, 3)  # type: ignore[arg-type]
    with Monitor(model) as monitor, pytest.raises(UsageError, match="not attached, this one is"):
        monitor.attach()


@pytest.mark.parametrize("place", ["_record", "sources", "_leave_module"])
def test_a_fault_of_the_recording_ends_the_watch_and_not_the_forward_pass(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise KeyError("ours")

    plain, watched = network(), network()
    torch.manual_seed(5)
    losses = train(plain, torch.optim.SGD(plain.parameters(), lr=0.01), 3)
    monkeypatch.setattr(Recorder, place, fault)
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.01)
    torch.manual_seed(5)
    with pytest.warns(SteadygradWarning, match="goes on unwatched"), Monitor(watched, optimizer):
        assert train(watched, optimizer, 3) == losses
    assert same(plain, watched)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watched.modules())
