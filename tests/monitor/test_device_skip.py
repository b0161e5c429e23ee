"""A broken step left out by the optimizer's own kernel: the code for GPUs, run on a CPU."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

import pytest
import torch
import torch.nn.functional as F

from steadygrad.monitor import Monitor
from steadygrad.monitor.optimizer_tap import OptimizerTap
from steadygrad.remedies import attach, clip_by_global_norm

from .networks import batch, mlp


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_a_fused_optimizer_leaves_out_the_broken_step_alone(
    monkeypatch: pytest.MonkeyPatch, kind: type[torch.optim.Optimizer]
) -> None:
    monkeypatch.setattr(OptimizerTap, "on_host", False)
    models = {}
    for broken in (True, False):
        model = models[broken] = mlp()
        optimizer = kind(model.parameters(), lr=0.01, fused=True)  # type: ignore[call-arg]
        with Monitor(model, optimizer, every=10, on_nonfinite="skip"):
            for step in range(4):
                if step == 2 and not broken:
                    continue  # the step that the other one has to leave out
                x, y = batch(seed=step)
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                (loss * float("nan") if step == 2 else loss).backward()
                optimizer.step()
                assert not hasattr(optimizer, "found_inf"), "the flag is taken away"
    for one, other in zip(models[True].parameters(), models[False].parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_gradients_that_are_finite_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OptimizerTap, "on_host", False)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x, y = batch()
    with Monitor(model, optimizer, on_nonfinite="skip"):
        F.cross_entropy(model(x), y).backward()
        before = [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    assert all(torch.equal(parameter.grad, kept) for parameter, kept in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("monitor_first", [True, False])
def test_a_clip_that_folds_itself_into_the_step_still_acts(
    monkeypatch: pytest.MonkeyPatch, monitor_first: bool
) -> None:
    monkeypatch.setattr(OptimizerTap, "on_host", False)
    models = {}
    for watched in (True, False):
        model = models[watched] = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        monitor = Monitor(model, optimizer, every=10, on_nonfinite="skip") if watched else nullcontext()
        with ExitStack() as stack:
            if monitor_first:
                stack.enter_context(monitor)
            attach(optimizer, clip_by_global_norm(0.01))
            if not monitor_first:
                stack.enter_context(monitor)
            for step in range(3):
                x, y = batch(seed=step)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    for one, other in zip(models[True].parameters(), models[False].parameters(), strict=True):
        assert torch.equal(one, other)
