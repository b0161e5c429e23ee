"""Clipping at a norm that falls from 1 to 0.01 over the training (by 0.98 a step), against a fixed norm and none, on a
network that explodes and on one at a learning rate far too large (5 tanh layers at 3).
"""

from functools import partial

import torch
from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, normal, on_digits, stack, train
from experiments.claims.rescue import CURED
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import Decaying, attach
from steadygrad.remedies.clipping import clip_by_global_norm
from steadygrad.training import TrainingSetup

CASES = {
    "6 ReLU layers from N(0, 1)": (partial(stack, nn.ReLU, 6, fill=normal(1.0)), 0.1),
    "5 tanh layers at a rate of 3": (partial(stack, nn.Tanh, 5), 3.0),
}
THRESHOLDS = {
    "decaying": Decaying(1.0, decay=0.98, least=0.01),
    "fixed at 1": 1.0,
    "fixed at 0.1": 0.1,
}


def clipped(setup: TrainingSetup, lr: float, threshold) -> TrainingSetup:
    def optimizer(parameters) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=lr)
        attach(made, clip_by_global_norm(threshold))
        return made

    return setup.replace(optimizer=optimizer)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, (build, lr) in CASES.items():
        setup = on_digits(build(seed=seed), lr)
        measured[f"{name}, unclipped"] = accuracy(train(setup, seed, quick))
        for label, threshold in THRESHOLDS.items():
            measured[f"{name}, {label}"] = accuracy(train(clipped(setup, lr, threshold), seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in CASES:
        cured = gains(outcomes, f"{name}, decaying", f"{name}, unclipped")
        conditions.append(Condition(f"cures {name}", cured, CURED))
    for name in CASES:
        better = gains(outcomes, f"{name}, decaying", f"{name}, fixed at 1")
        conditions.append(Condition(f"not worse than fixed at 1: {name}", better, -0.05))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="A clipping threshold that decays over time is a working form of gradient clipping.",
    articles=("001",),
    criterion="The network becomes more than 0.3 more often right, and at most 0.05 less often than with a fixed "
    "bound.",
    measure=measure,
    judge=judge,
)
