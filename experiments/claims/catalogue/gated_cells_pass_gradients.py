"""Loss gradient at the first of 30 or 100 inputs over that at the last, before training, in a plain recurrent network,
an LSTM and a GRU with PyTorch's weights, and in an LSTM whose forget bias of 3 holds its gate open.
"""

import torch

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.sequences import UNITS, growth_over_time, network
from experiments.claims.verdict import Condition, Verdict, gains, values

LENGTHS = (30, 100)
GATED = ("LSTM", "GRU", "LSTM, forget bias 3")


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for length in LENGTHS:
        for name in ("RNN", *GATED):
            model = network(name.split(",")[0], seed)
            if "forget" in name:
                with torch.no_grad():
                    model.cells.bias_ih_l0[UNITS : 2 * UNITS] += 3.0
            measured[f"{name}, T = {length}"] = growth_over_time(model, length)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in GATED:
        for length in LENGTHS:
            case = f"{name}, T = {length}"
            conditions.append(Condition(f"eases it: {case}", gains(outcomes, case, f"RNN, T = {length}"), least=2))
            conditions.append(Condition(f"removes it: {case}", values(outcomes, case), least=-2))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="The gates of LSTM and GRU let gradients pass through time, so that they vanish no more.",
    articles=("000", "002"),
    criterion="Against a plain network the decay is more than a hundredfold smaller (eases it), and it is less than "
    "hundredfold (removes it).",
    measure=measure,
    judge=judge,
)
