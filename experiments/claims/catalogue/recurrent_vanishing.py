"""Plain recurrent networks with PyTorch's weights are to tell after T steps what the first step showed: decay of the
gradient from the last input to the first, and accuracy after 200 steps of Adam (chance is 0.25).
"""

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, train
from experiments.claims.sequences import growth_over_time, network, on_recall
from experiments.claims.verdict import Condition, Verdict, values

LENGTHS = (5, 30, 60)


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for length in LENGTHS:
        measured[f"gradient, T = {length}"] = growth_over_time(network("RNN", seed), length)
        training = train(on_recall(network("RNN", seed), length), seed, quick, steps=200)
        measured[f"accuracy, T = {length}"] = accuracy(training)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for length in LENGTHS:
        conditions.append(Condition(f"gradient, T = {length}", values(outcomes, f"gradient, T = {length}"), most=-2))
        conditions.append(Condition(f"accuracy, T = {length}", values(outcomes, f"accuracy, T = {length}"), most=0.5))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="In recurrent networks gradients vanish over long dependencies.",
    articles=("000",),
    criterion="The gradient shrinks more than a hundredfold on its way to the first step, and accuracy stays "
    "below 0.5.",
    measure=measure,
    judge=judge,
)
