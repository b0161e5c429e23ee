"""Gradient, weight and optimizer remedies on two gloo processes: DDP and FSDP2 give the numbers of a single process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.two_processes import check_in_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from steadygrad.errors import NotApplicableError
from steadygrad.remedies import adaptive_clip, attach

from . import optimizer_remedies
from .loops import Advance, Way
from .transforms import CASES, STEPS, batch, network, train_by_hand

pytestmark = pytest.mark.slow

OPTIMIZERS = (partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.AdamW, lr=0.01, fused=True))


def _check(rank: int) -> None:
    for name, make in CASES.items():
        for optimizer_of in OPTIMIZERS:
            expected = train_by_hand(make(), optimizer_of)
            for spread in (DistributedDataParallel, _sharded):
                _assert_same(_train(spread, make(), optimizer_of, rank), expected, f"{name} with {spread.__name__}")
    for case in optimizer_remedies.CASES:
        expected = optimizer_remedies.train(case)
        for spread in (DistributedDataParallel, _sharded):
            if case == "centered_updates" and spread is _sharded:
                with pytest.raises(NotApplicableError, match=r"expected parameters that each process holds whole"):
                    optimizer_remedies.train(case, _half(rank), spread)
                continue
            found = optimizer_remedies.train(case, _half(rank), spread)
            _assert_same(found, expected, f"{case} with {spread.__name__}")
    _check_refusal()


def _assert_same(found: list[Tensor], expected: list[Tensor], where: str) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=f"{where}: {{}}".format)


def _sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def _train(spread, make_transform, optimizer_of, rank: int) -> list[Tensor]:
    model = spread(network())
    optimizer = optimizer_of(model.parameters())
    attach(optimizer, make_transform)
    advance = _half(rank)(model, optimizer)
    for step in range(STEPS):
        advance(step)
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]


def _half(rank: int) -> Way:
    """Return a way to step on this process's half of the batch."""

    def way(model: nn.Module, optimizer: torch.optim.Optimizer) -> Advance:
        def advance(step: int) -> None:
            optimizer.zero_grad()
            x, y = (part[rank::2] for part in batch(step))
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

        return advance

    return way


def _check_refusal() -> None:
    mesh = init_device_mesh("cpu", (2,))
    weight = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
    with pytest.raises(NotApplicableError, match=r"adaptive_clip: expected parameters sharded along dimension 0"):
        attach(torch.optim.SGD([weight], lr=0.1), adaptive_clip())


def test_two_processes(tmp_path: Path) -> None:
    check_in_two_processes(_check, tmp_path)
