"""On a CUDA device: the same numbers as on a CPU, no waiting within a step, the same training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from steadygrad.monitor import Monitor

from .networks import batch, mlp, same, shown

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _no_waiting_is_left_forbidden() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def train_on(device: str, monitor_every: int | None, forbid_waiting: bool = False) -> tuple[torch.nn.Module, Monitor]:
    model = mlp().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = Monitor(model, optimizer, every=monitor_every or 1)
    batches = [tuple(part.to(device) for part in batch(seed=step)) for step in range(6)]
    if monitor_every is not None:
        monitor.attach()
    for step, (x, y) in enumerate(batches):
        if forbid_waiting and step == 2:  # the first step draws the blueprint, which is allowed to wait
            torch.cuda.set_sync_debug_mode("error")
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    monitor.detach()
    return model, monitor


def test_no_step_waits_for_the_device() -> None:
    _, monitor = train_on("cuda", 1, forbid_waiting=True)
    assert monitor.history.steps.tolist() == list(range(6))


def test_a_broken_step_is_left_out_without_waiting() -> None:
    model = mlp().to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    x, y = (part.to("cuda") for part in batch())
    with Monitor(model, optimizer, every=1, on_nonfinite="skip"):
        for step in range(4):
            before = [parameter.detach().clone() for parameter in model.parameters()]
            if step == 2:
                torch.cuda.set_sync_debug_mode("error")
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) * (float("nan") if step == 2 else 1.0)).backward()
            optimizer.step()
            torch.cuda.set_sync_debug_mode("default")
            same_as_before = [torch.equal(p, kept) for p, kept in zip(model.parameters(), before, strict=True)]
            assert all(same_as_before) if step == 2 else not any(same_as_before)


def test_numbers_are_those_of_a_cpu() -> None:
    _, there = train_on("cuda", 1)
    _, here = train_on("cpu", 1)
    for statistic in ("grad_norm", "grad_norm_used", "weight_rms", "update_ratio", "output_rms", "output_grad_rms"):
        assert shown(there, statistic, look=0) == pytest.approx(shown(here, statistic, look=0), rel=1e-3), statistic


def test_the_training_is_the_same() -> None:
    watched, _ = train_on("cuda", 2)
    plain, _ = train_on("cuda", None)
    assert same(watched.cpu(), plain.cpu())
