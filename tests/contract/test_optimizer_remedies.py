"""Weight and optimizer remedies pass one suite; a new one is a line in ``CASES`` of ``optimizer_remedies.py``."""

from __future__ import annotations

import math

import pytest
import torch

from steadygrad.remedies import CATALOGUE, Site

from . import loops
from .loops import Way
from .optimizer_remedies import CASES, train
from .transforms import loss_of

every_remedy = pytest.mark.parametrize("case", CASES)


def test_the_table_misses_no_remedy() -> None:
    sites = (Site.WEIGHT, Site.OPTIMIZER)
    assert {name for name, factory in CATALOGUE.items() if factory.card.site in sites} == {n for n, _ in CASES.values()}


@every_remedy
@pytest.mark.parametrize(
    "way",
    [
        loops.scaled,
        loops.unscaled,
        loops.accumulated,
        loops.closed,
        pytest.param(loops.compiled, marks=pytest.mark.slow),
    ],
)
def test_every_way_to_step_gives_the_same_numbers(case: str, way: Way) -> None:
    expected = train(case)
    for found, wanted in zip(train(case, way), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-7)
    without = train("")
    assert case in ("longer_training", "optimizer adamw") or not torch.equal(expected[0], without[0])


@every_remedy
def test_steps_that_a_grad_scaler_skips_change_nothing(case: str) -> None:
    def overflowing(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> loops.Advance:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        before = [parameter.detach().clone() for parameter in model.parameters()]

        def advance(step: int) -> None:
            optimizer.zero_grad()
            (scaler.scale(loss_of(model, step)) * math.inf).backward()
            scaler.step(optimizer)
            scaler.update()
            assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))

        return advance

    train(case, overflowing)
