"""Stacks whose weights are drawn from N(0, 1), far above 1/sqrt(32): growth of the loss gradient towards the input
before training, and whether 150 steps of gradient descent at 0.1 diverge.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, normal, on_digits, stack, train
from experiments.claims.verdict import Condition, Verdict, values

KINDS = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, kind in KINDS.items():
        for depth in (6, 20):
            measured[f"growth, {name}, {depth} layers"] = gradient_growth(stack(kind, depth, seed, normal(1.0)))
        training = train(on_digits(stack(kind, 6, seed, normal(1.0))), seed, quick)
        measured[f"diverged, {name}, 6 layers"] = float(training.diverged)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    growth = [key for key in outcomes[0] if key.startswith("growth")]
    return Verdict(tuple(Condition(key, values(outcomes, key), least=2) for key in growth))


CLAIM = Claim(
    sentence="Weights that start too large make gradients explode.",
    articles=("000", "002"),
    criterion="The gradient grows more than a hundredfold from the last hidden layer to the first (log10 above 2).",
    measure=measure,
    judge=judge,
)
