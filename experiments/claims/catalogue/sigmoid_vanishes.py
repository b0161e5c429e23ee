"""The loss gradient at the first hidden layer over that at the last, before training, in stacks of sigmoids: with
PyTorch's, Xavier's and He's weights and, for comparison, with weights drawn from N(0, 1).
"""

from functools import partial

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, normal, stack
from experiments.claims.verdict import Condition, Verdict, values

FILLS = {
    "PyTorch's weights": None,
    "Xavier": nn.init.xavier_normal_,
    "He": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "N(0, 1)": normal(1.0),
}
DEPTHS = (5, 10, 30)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        f"{fill}, {depth} layers": gradient_growth(stack(nn.Sigmoid, depth, seed, FILLS[fill]))
        for fill in FILLS
        for depth in DEPTHS
    }


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(key, values(outcomes, key), most=-2) for key in outcomes[0]))


CLAIM = Claim(
    sentence="Sigmoids, whose slope is small, make gradients vanish in deep networks.",
    articles=("000", "002"),
    criterion="The gradient shrinks more than a hundredfold from the last hidden layer to the first (log10 below -2).",
    measure=measure,
    judge=judge,
)
