"""Twenty linear layers whose entries are all below 1, or all at least 1 in size, in networks of 4 and of 256 units:
growth of the gradient from the last layer to the first.
"""

from functools import partial

import torch
from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, values


def below(weight: Tensor) -> None:
    nn.init.uniform_(weight, -0.5, 0.5)


def above(weight: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(1.1 * torch.where(torch.rand_like(weight) < 0.5, -1.0, 1.0))


CIRCUMSTANCES = {
    "entries below 0.5 shrink it, 4 units": partial(stack, fill=below, width=4),
    "entries below 0.5 shrink it, 256 units": partial(stack, fill=below, width=256),
    "entries of 1.1 let it grow, 4 units": partial(stack, fill=above, width=4),
    "entries of 1.1 let it grow, 256 units": partial(stack, fill=above, width=256),
}


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {key: gradient_growth(make(nn.Identity, 20, seed)) for key, make in CIRCUMSTANCES.items()}


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(key, values(outcomes, key), most=-1)
            if "shrink" in key
            else Condition(key, values(outcomes, key), least=1)
            for key in CIRCUMSTANCES
        )
    )


CLAIM = Claim(
    sentence="Weights below 1 in absolute value make gradients shrink layer by layer, weights above 1 make them grow.",
    articles=("000",),
    criterion="Over 20 layers the gradient changes more than tenfold in the direction that the claim says.",
    measure=measure,
    judge=judge,
)
