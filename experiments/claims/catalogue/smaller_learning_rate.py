"""Networks that learn nothing at a rate of 0.1 are trained at smaller ones: one whose weights are too large, one of
sigmoids, and one of five tanh layers at a rate of 3.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, normal, on_digits, stack, train
from experiments.claims.rescue import CURED
from experiments.claims.verdict import Condition, Verdict, gains

RATES = {
    "6 ReLU layers from N(0, 1)": (0.1, 0.01, 0.001, 0.0001),
    "8 sigmoid layers": (0.1, 0.01, 0.001),
    "5 tanh layers": (3.0, 0.3),
}


def network(name: str, seed: int) -> nn.Sequential:
    if "ReLU" in name:
        return stack(nn.ReLU, 6, seed, normal(1.0))
    return stack(nn.Sigmoid, 8, seed) if "sigmoid" in name else stack(nn.Tanh, 5, seed)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        f"{name} at {rate:g}": accuracy(train(on_digits(network(name, seed), rate), seed, quick))
        for name, rates in RATES.items()
        for rate in rates
    }


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"{name} at {rate:g}", gains(outcomes, f"{name} at {rate:g}", f"{name} at {rates[0]:g}"), CURED)
            for name, rates in RATES.items()
            for rate in rates[1:]
        )
    )


CLAIM = Claim(
    sentence="A smaller learning rate prevents exploding and vanishing gradients.",
    articles=("001",),
    criterion="At the smaller rate the network is more than 0.3 more often right after 150 steps.",
    measure=measure,
    judge=judge,
)
