"""Two processes: each sees the gradient of its own data arrive, and both the averaged, clipped one being used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from .plain_loop import CLIP, RATE, STEPS, loss_of, network


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_a_trainer_in_two_processes(trainer: str, checkout: Path, tmp_path: Path) -> None:
    script = checkout / "tests" / "integrations" / "ddp_fit.py"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command = [*launch, str(script), trainer, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    arrived, used = by_hand([rank["given"] for rank in ranks])
    for rank in range(2):
        torch.testing.assert_close(ranks[rank]["seen"][0], arrived[rank], rtol=1e-4, atol=0)
        torch.testing.assert_close(ranks[rank]["seen"][1], used, rtol=1e-4, atol=0)


def by_hand(given: list[list[tuple[Tensor, Tensor]]]) -> tuple[list[Tensor], Tensor]:
    """Return each rank's own norms, and those of the clipped average: shape ``(steps, layers)`` each."""
    model = network()
    arrived: list[list[Tensor]] = [[], []]
    used = []
    for step in range(STEPS):
        grads = []
        for rank in range(2):
            x, y = given[rank][step]
            grads.append(torch.autograd.grad(loss_of(model(x), y), list(model.parameters())))
            arrived[rank].append(norms(grads[rank]))
        for parameter, one, other in zip(model.parameters(), *grads, strict=True):
            parameter.grad = (one + other) / 2
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        used.append(norms([parameter.grad for parameter in model.parameters()]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= RATE * parameter.grad
    return [torch.stack(rows) for rows in arrived], torch.stack(used)


def norms(grads: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.cat([g.double().flatten() for g in grads[i : i + 2]]).norm() for i in (0, 2)])
