"""Growth of the loss gradient from the last hidden layer to the first, before training, over 20 layers of sigmoids,
tanhs and ReLUs, each with PyTorch's weights, those of its own rule (Xavier; He) and N(0, 1).
"""

from functools import partial

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import Fill, gradient_growth, normal, stack
from experiments.claims.verdict import Condition, Verdict, values

he: Fill = partial(nn.init.kaiming_normal_, nonlinearity="relu")
CIRCUMSTANCES: dict[str, tuple[type[nn.Module], Fill | None]] = {
    "sigmoid explodes, PyTorch's weights": (nn.Sigmoid, None),
    "sigmoid explodes, Xavier": (nn.Sigmoid, nn.init.xavier_normal_),
    "sigmoid explodes, N(0, 1)": (nn.Sigmoid, normal(1.0)),
    "tanh explodes, Xavier": (nn.Tanh, nn.init.xavier_normal_),
    "tanh explodes, N(0, 1)": (nn.Tanh, normal(1.0)),
    "ReLU vanishes, PyTorch's weights": (nn.ReLU, None),
    "ReLU vanishes, He": (nn.ReLU, he),
    "ReLU vanishes, N(0, 1)": (nn.ReLU, normal(1.0)),
}


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {key: gradient_growth(stack(kind, 20, seed, fill)) for key, (kind, fill) in CIRCUMSTANCES.items()}


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(key, values(outcomes, key), least=1)
            if "explodes" in key
            else Condition(key, values(outcomes, key), most=-1)
            for key in CIRCUMSTANCES
        )
    )


CLAIM = Claim(
    sentence="Gradients explode where sigmoid or tanh saturate, and vanish in deep networks of ReLUs.",
    articles=("004",),
    criterion="Over 20 layers the gradient grows more than tenfold (sigmoid, tanh), shrinks more than tenfold (ReLU).",
    measure=measure,
    judge=judge,
)
