"""The same vanishing sigmoid networks in single and in double precision: by how many powers of ten the gradient at the
first layer is larger where numbers are finer.
"""

import torch
from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, values

DEPTHS = (5, 10, 20)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for depth in DEPTHS:
        model = stack(nn.Sigmoid, depth, seed)
        double, single = (gradient_growth(model, dtype=dtype) for dtype in (torch.float64, torch.float32))
        measured[f"double, {depth} layers"] = double
        measured[f"gained, {depth} layers"] = double - single
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(f"{d} layers", values(outcomes, f"gained, {d} layers"), least=1) for d in DEPTHS))


CLAIM = Claim(
    sentence="Gradients vanish because numbers below some threshold are lost to numerical precision.",
    articles=("001",),
    criterion="In double precision the gradient of the first layer is more than ten times as large.",
    measure=measure,
    judge=judge,
)
