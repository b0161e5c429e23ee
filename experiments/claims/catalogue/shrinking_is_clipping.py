"""One article multiplies all weights by 0.99 after each step and calls it clipping. Tried on a network that explodes
and on a healthy one, each at its best rate.
"""

from functools import partial

import torch
from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, stack
from experiments.claims.rescue import CURED
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import after_step
from steadygrad.training import TrainingSetup

NETWORKS = {
    "6 ReLU layers from N(0, 1)": partial(stack, nn.ReLU, 6, fill=normal(1.0)),
    "healthy, 3 ReLU layers": partial(stack, nn.ReLU, 3),
}


def shrink(parameters: list[nn.Parameter], lr: float | Tensor) -> None:
    for parameter in parameters:
        parameter.data *= 0.99


def shrinking(setup: TrainingSetup) -> TrainingSetup:
    def optimizer(parameters) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.1)
        after_step(made, shrink)
        return made

    return setup.replace(optimizer=optimizer)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, build in NETWORKS.items():
        setup = on_digits(build(seed=seed))
        for arm, each in (("plain", setup), ("shrunk", shrinking(setup))):
            measured[f"{name}, {arm}"] = accuracy(best_training(each, seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    sick, healthy = NETWORKS
    return Verdict(
        (
            Condition(f"cures {sick}", gains(outcomes, f"{sick}, shrunk", f"{sick}, plain"), CURED),
            Condition(f"harmless where {healthy}", gains(outcomes, f"{healthy}, shrunk", f"{healthy}, plain"), -0.02),
        )
    )


CLAIM = Claim(
    sentence="Multiplying the weights by 0.99 after each step is gradient clipping and prevents explosion.",
    articles=("003",),
    criterion="The network with too large weights becomes more than 0.3 more often right, and a healthy one loses less "
    "than 0.02.",
    measure=measure,
    judge=judge,
)
