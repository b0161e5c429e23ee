from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import UsageError
from steadygrad.remedies import Curve, learning_rate, schedule
from steadygrad.training import Training


def rates(factory, steps: int, lr: float = 0.5) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = factory(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("decay", "reference"),
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40)),
        ("step", lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones=[20, 30], gamma=0.1)),
        ("exponential", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.01 ** (1 / 40))),
        ("none", lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
)
def test_decays_equal_torchs_own(make_setup, mlp, decay: str, reference) -> None:
    setup = schedule(decay=decay, warmup=0.0)(make_setup(mlp(), steps=40))
    assert rates(setup.scheduler, 40) == pytest.approx(rates(reference, 40), rel=1e-9, abs=1e-12)


def test_warm_up_rises_to_the_full_rate_and_the_decay_ends_with_the_training() -> None:
    curve = Curve("cosine", steps=50, warmup=10)
    shares = [curve(step) for step in range(60)]
    assert shares[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert shares[10] == 1.0
    assert shares[10:51] == sorted(shares[10:51], reverse=True)
    assert shares[50:] == [0.0] * 10


def test_the_searched_rate_is_its_peak_and_the_factory_pickles(make_setup, mlp) -> None:
    setup = learning_rate(lr=0.3)(schedule(decay="none", warmup=0.1)(make_setup(mlp(), steps=20)))
    training = Training(setup.replace(scheduler=pickle.loads(pickle.dumps(setup.scheduler))), seed=0)
    seen = []
    training.advance(4, lambda step: seen.append(training._optimizer.param_groups[0]["lr"]))
    assert seen == pytest.approx([0.3] * 4)
    assert rates(setup.scheduler, 3, lr=0.3) == pytest.approx([0.15, 0.3, 0.3])


def test_a_resumed_schedule_goes_on_exactly_from_plain_numbers() -> None:
    def build() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=Curve("cosine", 30, 5))

    optimizer, scheduler = build()
    for _ in range(12):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"decay": "cosine", "steps": 30, "warmup": 5}]
    resumed_optimizer, resumed = build()
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    for each, its in ((scheduler, optimizer), (resumed, resumed_optimizer)):
        its.step()
        each.step()
    assert resumed_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_refusals(make_setup, mlp) -> None:
    with pytest.raises(UsageError, match=r"expected warmup at least 0 and below 1, got 100. It is a share"):
        schedule(warmup=100)(make_setup(mlp()))
