"""Weight steps on two gloo processes: DDP and FSDP2 give the numbers of a single process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.two_processes import check_in_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from steadygrad.remedies import (
    ClipWeights,
    MaxNorm,
    SoftThreshold,
    WeightDecay,
    WeightStep,
    add_weights,
    after_step,
    attach,
)

STEPS = [MaxNorm(0.5), MaxNorm(1.0, over="layer"), ClipWeights(0.1), SoftThreshold(0.5), WeightDecay(0.5), None]


def trained(step: WeightStep | None, spread=lambda model: model, share: slice = slice(None)) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(8, 6)
    model = spread(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if step is None:
        attach(optimizer, add_weights(0.3))
    else:
        after_step(optimizer, step)
    for _ in range(3):
        optimizer.zero_grad()
        model(x[share]).square().mean().backward()
        optimizer.step()
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]


def sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def _check(rank: int) -> None:
    for step in STEPS:
        expected = trained(step)
        for spread in (DistributedDataParallel, sharded):
            for a, b in zip(trained(step, spread, slice(rank, None, 2)), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    check_in_two_processes(_check, tmp_path)
