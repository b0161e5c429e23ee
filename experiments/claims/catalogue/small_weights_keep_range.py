"""ReLU and tanh stacks drawn from N(0, 0.01²): by how much the signal shrinks from the first hidden layer to the last,
and how much better or worse the network learns than one drawn for its activation, each at its best rate.
"""

from functools import partial

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, signal_growth, stack
from experiments.claims.verdict import Condition, Verdict, gains, values

KINDS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
GOOD = {"ReLU": partial(nn.init.kaiming_normal_, nonlinearity="relu"), "tanh": nn.init.xavier_normal_}
DEPTHS = (2, 8)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, kind in KINDS.items():
        for depth in DEPTHS:
            small, good = stack(kind, depth, seed, normal(0.01)), stack(kind, depth, seed, GOOD[name])
            for label, model in (("small", small), ("good", good)):
                measured[f"{label}, {name}, {depth} layers"] = accuracy(best_training(on_digits(model), seed, quick))
            measured[f"signal, {name}, {depth} layers"] = signal_growth(small)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in KINDS:
        for depth in DEPTHS:
            where = f"{name}, {depth} layers"
            conditions.append(
                Condition(f"accuracy, {where}", gains(outcomes, f"small, {where}", f"good, {where}"), -0.05)
            )
            if depth > 2:  # one hidden layer has nothing to lose it to
                conditions.append(Condition(f"signal, {where}", values(outcomes, f"signal, {where}"), -1, 1))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="Small random initial weights keep gradients in a reasonable range.",
    articles=("000", "002"),
    criterion="The signal stays within a factor 10 from the first hidden layer to the last, and the network is at most "
    "0.05 less often right than one drawn for its activation.",
    measure=measure,
    judge=judge,
)
