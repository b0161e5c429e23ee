"""The largest slope of each activation, over a million inputs drawn from N(0, 3²)."""

import torch
from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.verdict import Condition, Verdict, values
from steadygrad.training import seeded

KINDS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU, "SiLU": nn.SiLU, "GELU": nn.GELU, "ELU": nn.ELU}


def measure(seed: int, quick: bool) -> dict[str, float]:
    with seeded(seed):
        x = 3 * torch.randn(10_000 if quick else 1_000_000, dtype=torch.float64)
    measured = {}
    for name, kind in KINDS.items():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(kind()(x).sum(), x)
        measured[name] = slope.max().item()
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(name, values(outcomes, name), least=2) for name in KINDS))


CLAIM = Claim(
    sentence="The slope of an activation is far above 1, which is why gradients vanish or explode.",
    articles=("001",),
    criterion="The largest slope is above 2.",
    measure=measure,
    judge=judge,
)
