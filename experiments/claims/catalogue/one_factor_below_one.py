"""Thirty layers in whose backward pass factors below 1 occur: the slopes of tanh never exceed 1, half of ReLU's are 0,
those of sigmoid at most 1/4. Weights are orthogonal, drawn by He, or scaled by 4; PyTorch's weights for comparison.
"""

from functools import partial

from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import Fill, gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, values


def orthogonal(weight: Tensor, gain: float) -> None:
    nn.init.orthogonal_(weight, gain)


CIRCUMSTANCES: dict[str, tuple[type[nn.Module], Fill | None]] = {
    "tanh, orthogonal weights": (nn.Tanh, partial(orthogonal, gain=1.0)),
    "tanh, PyTorch's weights": (nn.Tanh, None),
    "ReLU, He": (nn.ReLU, partial(nn.init.kaiming_normal_, nonlinearity="relu")),
    "sigmoid, orthogonal weights times 4": (nn.Sigmoid, partial(orthogonal, gain=4.0)),
    "sigmoid, PyTorch's weights": (nn.Sigmoid, None),
}


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {key: gradient_growth(stack(kind, 30, seed, fill, width=64)) for key, (kind, fill) in CIRCUMSTANCES.items()}


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(key, values(outcomes, key), most=-2) for key in CIRCUMSTANCES))


CLAIM = Claim(
    sentence="If any one factor of the chain rule is below 1, as with sigmoid or tanh, gradients vanish with depth.",
    articles=("002",),
    criterion="The gradient shrinks more than a hundredfold over 30 layers.",
    measure=measure,
    judge=judge,
)
