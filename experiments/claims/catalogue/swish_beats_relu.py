"""Networks of 3 and of 10 layers with ReLU and with SiLU (Swish), each drawn with the gain of its activation: accuracy
on held-out digits after 150 steps at the best rate.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import make
from steadygrad.training import seeded

KINDS = {"ReLU": nn.ReLU, "SiLU": nn.SiLU}
DEPTHS = (3, 10)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for depth in DEPTHS:
        for name, kind in KINDS.items():
            with seeded(seed):
                setup = make("initialization", method="he")(on_digits(stack(kind, depth, seed)))
            measured[f"{name}, {depth} layers"] = accuracy(best_training(setup, seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"{d} layers", gains(outcomes, f"SiLU, {d} layers", f"ReLU, {d} layers"), least=0.01)
            for d in DEPTHS
        )
    )


CLAIM = Claim(
    sentence="Newer activations as Swish train better than ReLU.",
    articles=("001",),
    criterion="Accuracy on held-out digits is more than 0.01 above that of ReLU.",
    measure=measure,
    judge=judge,
)
