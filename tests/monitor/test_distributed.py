"""Two gloo processes: local and reduced gradients under DDP, whole norms of FSDP2 shards."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.two_processes import check_in_two_processes

from steadygrad.monitor import Monitor

from .networks import batch, layer_norms, mlp, shown, true_grads

pytestmark = pytest.mark.slow


def _check(rank: int) -> None:
    _check_ddp(rank)
    _check_fsdp()
    _check_that_ranks_skip_together(rank)


def _local_truth(rank: int) -> dict[str, torch.Tensor]:
    model, (x, y) = mlp(), batch(seed=rank)
    return true_grads(model, F.cross_entropy(model(x), y))


def _check_ddp(rank: int) -> None:
    model = torch.nn.parallel.DistributedDataParallel(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch(seed=rank)
    mine, other = _local_truth(rank), _local_truth(1 - rank)
    mean = {name: (mine[name] + other[name]) / 2 for name in mine}
    with Monitor(model, optimizer, every=1) as monitor:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(layer_norms(mine), rel=1e-5)
    assert shown(monitor, "grad_norm_used") == pytest.approx(layer_norms(mean), rel=1e-5)
    assert any("DistributedDataParallel" in note for note in monitor.unseen)


def _check_fsdp() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain, (x, y) = mlp(), batch()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    with Monitor(plain, optimizer, every=1) as expected:
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    model = copy.deepcopy(mlp())
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    for statistic in ("grad_norm", "grad_norm_used", "weight_rms", "update_ratio", "output_rms"):
        assert shown(monitor, statistic) == pytest.approx(shown(expected, statistic), rel=1e-4), statistic


def _check_that_ranks_skip_together(rank: int) -> None:
    model = mlp()  # each rank its own: nothing but the monitor carries the NaN over
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch(seed=rank)
    with Monitor(model, optimizer, every=10, on_nonfinite="skip") as monitor:
        for step in range(3):
            before = model[0].weight.detach().clone()
            optimizer.zero_grad()
            broken = step == 1 and rank == 1
            F.cross_entropy(model(x * float("nan") if broken else x), y).backward()
            optimizer.step()
            assert torch.equal(model[0].weight, before) == (step == 1)
    assert ["SG801"] * rank == [finding.code for finding in monitor.findings]


def test_two_ranks(tmp_path: Path) -> None:
    check_in_two_processes(_check, tmp_path)
