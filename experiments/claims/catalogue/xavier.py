"""Stacks of 20 layers with Xavier's weights: growth of the gradient before training, and what they gain over weights
from N(0, 0.01²) after 150 steps at the best rate.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, gradient_growth, normal, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains, values

KINDS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
DEPTH = 20


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, kind in KINDS.items():
        model = stack(kind, DEPTH, seed, nn.init.xavier_normal_)
        measured[f"growth, {name}"] = gradient_growth(model)
        measured[f"Xavier, {name}"] = accuracy(best_training(on_digits(model), seed, quick))
        small = stack(kind, DEPTH, seed, normal(0.01))
        measured[f"small, {name}"] = accuracy(best_training(on_digits(small), seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in KINDS:
        conditions.append(Condition(f"gradient, {name}", values(outcomes, f"growth, {name}"), -1, 1))
        gain = gains(outcomes, f"Xavier, {name}", f"small, {name}")
        conditions.append(Condition(f"accuracy over small weights, {name}", gain, least=0.3))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="Xavier's initialization keeps gradients of sigmoid and tanh networks steady.",
    articles=("002", "004"),
    criterion="The gradient stays within a factor 10 over 20 layers, and accuracy is 0.3 above that of N(0, 0.01²).",
    measure=measure,
    judge=judge,
)
