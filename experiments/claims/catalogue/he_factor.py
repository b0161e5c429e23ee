"""Xavier's rule gives a square layer the variance 1/n. Multiplying this variance by the root of 2, by 2 or, which is
the same as 2, the deviation by the root of 2: growth of the signal over 30 ReLU layers of 128 units.
"""

from functools import partial

from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import signal_growth, stack
from experiments.claims.verdict import Condition, Verdict, values

FACTORS = {"variance times sqrt(2)": 2**0.5, "variance times 2": 2.0}


def scaled(weight: Tensor, factor: float) -> None:
    nn.init.normal_(weight, std=(factor / weight.shape[1]) ** 0.5)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        name: signal_growth(stack(nn.ReLU, 30, seed, partial(scaled, factor=factor), width=128))
        for name, factor in FACTORS.items()
    }


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict((Condition("variance times sqrt(2)", values(outcomes, "variance times sqrt(2)"), -1, 1),))


CLAIM = Claim(
    sentence="He's initialization multiplies Xavier's variance by the root of 2.",
    articles=("000",),
    criterion="With that factor, which He's rule would have to be, the signal of 30 ReLU layers stays within a "
    "factor 10.",
    measure=measure,
    judge=judge,
)
