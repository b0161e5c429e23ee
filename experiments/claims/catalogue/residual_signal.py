"""Signal at the end of 10, 30 and 60 residual blocks y = x + F(x) without normalization, F a ReLU layer drawn by He,
over that at the start; with branches as the articles write them, and scaled by one over the root of their number.
"""

from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import digits, log10, rms
from experiments.claims.verdict import Condition, Verdict, values
from steadygrad.training import seeded

DEPTHS = (10, 30, 60)


def through(x: Tensor, depth: int, scale: float) -> Tensor:
    for _ in range(depth):
        layer = nn.Linear(64, 64, bias=False, dtype=x.dtype)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        x = x + scale * layer(x).relu()
    return x


def measure(seed: int, quick: bool) -> dict[str, float]:
    x, measured = digits().train[0][:128].double(), {}
    for depth in DEPTHS:
        for name, scale in (("as written", 1.0), ("scaled", depth**-0.5)):
            with seeded(seed):
                measured[f"{name}, {depth} blocks"] = log10(rms(through(x, depth, scale).detach())) - log10(rms(x))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(key, values(outcomes, key), -1, 1) for key in outcomes[0]))


CLAIM = Claim(
    sentence="Residual connections keep signals from exploding, whatever the depth.",
    articles=("000",),
    criterion="The signal at the end is within a factor 10 of that at the start.",
    measure=measure,
    judge=judge,
)
