"""The same recall task with LSTM and GRU in place of a plain recurrent network, over 30 and 60 steps, 200 steps of
Adam; the LSTM also with a forget bias of 3, which opens its gate.
"""

import torch

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, train
from experiments.claims.rescue import CURED
from experiments.claims.sequences import UNITS, LastState, network, on_recall
from experiments.claims.verdict import Condition, Verdict, gains

LENGTHS = (30, 60)


def open_forget_gate(model: LastState) -> LastState:
    with torch.no_grad():
        model.cells.bias_ih_l0[UNITS : 2 * UNITS].fill_(3.0)
    return model


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for length in LENGTHS:
        models = {name: network(name, seed) for name in ("RNN", "LSTM", "GRU")}
        models["LSTM, forget bias 3"] = open_forget_gate(network("LSTM", seed))
        for name, model in models.items():
            training = train(on_recall(model, length), seed, quick, steps=200)
            measured[f"{name}, T = {length}"] = accuracy(training)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"{name}, T = {length}", gains(outcomes, f"{name}, T = {length}", f"RNN, T = {length}"), CURED)
            for name in ("LSTM", "GRU", "LSTM, forget bias 3")
            for length in LENGTHS
        )
    )


CLAIM = Claim(
    sentence="LSTM and GRU ease vanishing gradients over long dependencies.",
    articles=("000", "002"),
    criterion="They are more than 0.3 more often right than a plain recurrent network.",
    measure=measure,
    judge=judge,
)
