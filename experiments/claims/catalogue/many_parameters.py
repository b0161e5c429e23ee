"""Networks of 10 layers with 16, 64 and 256 units, 256 times as many parameters at most, each drawn for its
activation: change of the gradient's growth over the depth from the narrowest to the widest.
"""

from functools import partial

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, gains

KINDS = {
    "ReLU, He": (nn.ReLU, partial(nn.init.kaiming_normal_, nonlinearity="relu")),
    "tanh, Xavier": (nn.Tanh, nn.init.xavier_normal_),
}
WIDTHS = (16, 64, 256)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        f"{name}, {width} units": gradient_growth(stack(kind, 10, seed, fill, width=width))
        for name, (kind, fill) in KINDS.items()
        for width in WIDTHS
    }


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in KINDS:
        change = gains(outcomes, f"{name}, 256 units", f"{name}, 16 units")
        conditions.append(Condition(f"{name}, vanishing", change, most=-1))
        conditions.append(Condition(f"{name}, explosion", change, least=1))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="The more parameters a network has, the more its gradients vanish or explode.",
    articles=("001",),
    criterion="With 256 units in place of 16 the gradient shrinks or grows more than tenfold over the same depth.",
    measure=measure,
    judge=judge,
)
