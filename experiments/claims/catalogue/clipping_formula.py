"""One article clips by min(lambda, |g|) * g. This formula and the right one, g * min(1, lambda / |g|), at lambda = 1 on
a network that explodes, and on a healthy one, whose small gradients the formula makes smaller still.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, stack
from experiments.claims.rescue import CURED
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import Gradients, GradientTransform, attach, make
from steadygrad.training import TrainingSetup

NETWORKS = {
    "6 ReLU layers from N(0, 1)": partial(stack, nn.ReLU, 6, fill=normal(1.0)),
    "healthy, 3 ReLU layers": partial(stack, nn.ReLU, 3),
}


def as_written(most: float) -> GradientTransform:
    def update(gradients: Gradients, state: dict, _: Sequence[Tensor]) -> dict:
        gradients.scale(min(most, gradients.global_norm()))
        return state

    return GradientTransform(lambda parameters: {}, update, "min(lambda, |g|) * g")


def with_formula(setup: TrainingSetup) -> TrainingSetup:
    def optimizer(parameters) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.1)
        attach(made, as_written(1.0))
        return made

    return setup.replace(optimizer=optimizer)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, build in NETWORKS.items():
        setup = on_digits(build(seed=seed))
        arms = {
            "unclipped": setup,
            "as written": with_formula(setup),
            "right": make("clip_by_global_norm", max_norm=1.0)(setup),
        }
        for arm, each in arms.items():
            measured[f"{name}, {arm}"] = accuracy(best_training(each, seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    sick = next(iter(NETWORKS))
    return Verdict(
        (
            Condition(f"cures {sick}", gains(outcomes, f"{sick}, as written", f"{sick}, unclipped"), CURED),
            Condition(
                f"does as the right one on {sick}", gains(outcomes, f"{sick}, as written", f"{sick}, right"), -0.05
            ),
        )
    )


CLAIM = Claim(
    sentence="Multiplying the gradient by the smaller of lambda and its own norm clips it.",
    articles=("001",),
    criterion="The network with too large weights becomes more than 0.3 more often right, and at most 0.05 less often "
    "than by the right formula.",
    measure=measure,
    judge=judge,
)
