"""Gap between accuracy on training data and on held-out digits of networks drawn from N(0, 1), at a rate that leaves
them finite, and of the same networks drawn by He, at the best rate, after 300 steps.
"""

from functools import partial

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, stack, train
from experiments.claims.verdict import Condition, Verdict, gains

DEPTHS = (4, 6)


def measure(seed: int, quick: bool) -> dict[str, float]:
    he = partial(nn.init.kaiming_normal_, nonlinearity="relu")
    measured = {}
    for depth in DEPTHS:
        trainings = {
            "exploding": train(on_digits(stack(nn.ReLU, depth, seed, normal(1.0)), 1e-4), seed, quick, steps=300),
            "healthy": best_training(on_digits(stack(nn.ReLU, depth, seed, he)), seed, quick, steps=300),
        }
        for name, training in trainings.items():
            measured[f"{name}, {depth} layers: test"] = accuracy(training)
            seen = accuracy(training, training.setup.train)
            measured[f"{name}, {depth} layers: gap"] = seen - measured[f"{name}, {depth} layers: test"]
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"{d} layers", gains(outcomes, f"exploding, {d} layers: gap", f"healthy, {d} layers: gap"), 0.02)
            for d in DEPTHS
        )
    )


CLAIM = Claim(
    sentence="Exploding gradients lead to overfitting.",
    articles=("001", "003"),
    criterion="The gap between accuracy on training data and on held-out data is more than 0.02 wider where gradients "
    "explode.",
    measure=measure,
    judge=judge,
)
