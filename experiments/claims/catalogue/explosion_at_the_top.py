"""Where the gradient of an exploding network is largest: log10 of its RMS at the last hidden layer over that at the
first, in stacks drawn from N(0, 1).
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, normal, stack
from experiments.claims.verdict import Condition, Verdict, values

KINDS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {name: -gradient_growth(stack(kind, 10, seed, normal(1.0))) for name, kind in KINDS.items()}


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(name, values(outcomes, name), least=0) for name in KINDS))


CLAIM = Claim(
    sentence="Exploding gradients grow on their way to the top layers of a network.",
    articles=("001",),
    criterion="The gradient is larger at the last hidden layer than at the first (log10 of the ratio above 0).",
    measure=measure,
    judge=judge,
)
