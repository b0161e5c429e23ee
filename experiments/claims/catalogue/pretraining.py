"""Sigmoid networks of 4 and 8 layers of 64 units with weights from N(0, 0.01²), as deep belief networks start,
trained for 300 steps as they are and after greedy pretraining as restricted Boltzmann machines (CD-1, 10 passes a
layer), each at its best rate.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, stack
from experiments.claims.rescue import CURED
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.boltzmann.pretraining import pretrain_

DEPTHS = (4, 8)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for depth in DEPTHS:
        setup = on_digits(stack(nn.Sigmoid, depth, seed, normal(0.01), width=64))
        measured[f"{depth} layers, as drawn"] = accuracy(best_training(setup, seed, quick, steps=300))
        pretrain_(setup.model, setup.train[0], epochs=1 if quick else 10, seed=seed)
        measured[f"{depth} layers, pretrained"] = accuracy(best_training(setup, seed, quick, steps=300))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"{d} layers", gains(outcomes, f"{d} layers, pretrained", f"{d} layers, as drawn"), CURED)
            for d in DEPTHS
        )
    )


CLAIM = Claim(
    sentence="Greedy layer-wise pretraining, as in deep belief networks, overcomes vanishing gradients.",
    articles=("002",),
    criterion="The pretrained network is more than 0.3 more often right.",
    measure=measure,
    judge=judge,
)
