"""Recurrent weights multiplied by 6, sequences of 50 steps: growth of the loss gradient from the last input to the
first in a plain recurrent network, an LSTM and a GRU.
"""

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.sequences import growth_over_time, network
from experiments.claims.verdict import Condition, Verdict, gains, values

SCALES = (6.0, 12.0)


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        f"{name}, times {scale:g}": growth_over_time(network(name, seed, scale), 50)
        for scale in SCALES
        for name in ("RNN", "LSTM", "GRU")
    }


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for scale in SCALES:
        for name in ("LSTM", "GRU"):
            case, plain = f"{name}, times {scale:g}", f"RNN, times {scale:g}"
            conditions.append(Condition(f"eases it: {case}", gains(outcomes, case, plain), most=-2))
            conditions.append(Condition(f"removes it: {case}", values(outcomes, case), most=1))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="LSTM and GRU keep gradients from exploding.",
    articles=("002",),
    criterion="Against a plain network the growth is at least a hundredfold smaller (eases it), and it is below "
    "tenfold (removes it).",
    measure=measure,
    judge=judge,
)
