"""One article writes Xavier's rule as U(-c/sqrt(n), c/sqrt(n)) with n the inputs of a layer and c any constant: growth
of the gradient over 20 tanh layers for three constants. Only sqrt(3) gives the variance 1/n of the true rule.
"""

from functools import partial

from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, values

CONSTANTS = {"c = 0.5": 0.5, "c = 1": 1.0, "c = sqrt(3)": 3**0.5, "c = 4": 4.0}


def uniform(weight: Tensor, constant: float) -> None:
    bound = constant / weight.shape[1] ** 0.5
    nn.init.uniform_(weight, -bound, bound)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        name: gradient_growth(stack(nn.Tanh, 20, seed, partial(uniform, constant=constant)))
        for name, constant in CONSTANTS.items()
    }


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(key, values(outcomes, key), -1, 1) for key in outcomes[0]))


CLAIM = Claim(
    sentence="Drawing weights from U(-c/sqrt(n), c/sqrt(n)) with a constant c set beforehand eases vanishing "
    "gradients.",
    articles=("004",),
    criterion="The gradient stays within a factor 10 over 20 tanh layers.",
    measure=measure,
    judge=judge,
)
