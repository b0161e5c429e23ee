"""Restricted Boltzmann machines of 8 hidden units learn binary patterns, the digits averaged to 4 x 4 and compared with
their means: 300 full-batch steps of CD-1 and, from the same weights, of gradient ascent on the exact log-likelihood,
whose 256 hidden states are summed. Exact log-likelihood in nats a row.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import digits
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.training import seeded

HIDDEN, STEPS, RATE = 8, 300, 0.2
STATES = torch.tensor(list(itertools.product((0.0, 1.0), repeat=HIDDEN)), dtype=torch.float64)

Machine = tuple[Tensor, Tensor, Tensor]
"""Weights ``(hidden, visible)``, visible biases, hidden biases."""


def patterns() -> Tensor:
    images = digits().train[0].view(-1, 1, 8, 8)
    small = F.avg_pool2d(images, 2).flatten(1).double()
    return (small > small.mean(0)).double()


def log_likelihood(machine: Machine, v: Tensor) -> Tensor:
    weight, a, b = machine
    log_z = (STATES @ b + F.softplus(STATES @ weight + a).sum(1)).logsumexp(0)
    return (v @ a + F.softplus(v @ weight.T + b).sum(1)).mean() - log_z


def exact_step(machine: Machine, v: Tensor) -> Machine:
    machine = tuple(part.detach().requires_grad_() for part in machine)
    gradient = torch.autograd.grad(log_likelihood(machine, v), machine)
    return tuple(part.detach() + RATE * step for part, step in zip(machine, gradient, strict=True))


def cd_step(machine: Machine, v: Tensor) -> Machine:
    weight, a, b = machine
    h = torch.sigmoid(v @ weight.T + b)
    v_model = torch.bernoulli(torch.sigmoid(torch.bernoulli(h) @ weight + a))
    h_model = torch.sigmoid(v_model @ weight.T + b)
    steps = (h.T @ v - h_model.T @ v_model) / len(v), (v - v_model).mean(0), (h - h_model).mean(0)
    return tuple(part + RATE * step for part, step in zip(machine, steps, strict=True))


def measure(seed: int, quick: bool) -> dict[str, float]:
    v = patterns()
    with seeded(seed):
        start: Machine = (
            0.1 * torch.randn(HIDDEN, v.shape[1], dtype=torch.float64),
            torch.logit(v.mean(0)),
            torch.zeros(HIDDEN, dtype=torch.float64),
        )
        reached = {"start": log_likelihood(start, v).item()}
        for name, step in (("CD-1", cd_step), ("exact gradient", exact_step)):
            machine = start
            for _ in range(10 if quick else STEPS):
                machine = step(machine, v)
            reached[name] = log_likelihood(machine, v).item()
    return reached


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        (
            Condition("raises the likelihood", gains(outcomes, "CD-1", "start"), least=0.5),
            Condition("reaches what the exact gradient does", gains(outcomes, "CD-1", "exact gradient"), least=-0.1),
        )
    )


CLAIM = Claim(
    sentence="Contrastive divergence estimates a gradient that maximizes the log-likelihood of the data.",
    articles=("002",),
    criterion="The exact log-likelihood rises by more than 0.5 nats a row, and ends less than 0.1 below that of the "
    "exact gradient.",
    measure=measure,
    judge=judge,
)
