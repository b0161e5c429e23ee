"""A healthy network of three ReLU layers with weights of both signs, with L2 penalties of three strengths and without:
accuracy on held-out digits after 150 steps at the best rate, and the share of weights that are negative at the end.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import make

STRENGTHS = (1e-4, 1e-3, 1e-2)


def measure(seed: int, quick: bool) -> dict[str, float]:
    setup = on_digits(stack(nn.ReLU, 3, seed))
    arms = {"none": setup} | {f"strength {s:g}": make("l2_penalty", strength=s)(setup) for s in STRENGTHS}
    measured = {}
    for name, arm in arms.items():
        training = best_training(arm, seed, quick)
        weights = [p for p in training.model.parameters() if p.dim() > 1]
        measured[name] = accuracy(training)
        measured[f"{name}: negative"] = sum(int((w < 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(Condition(f"strength {s:g}", gains(outcomes, f"strength {s:g}", "none"), most=-0.02) for s in STRENGTHS)
    )


CLAIM = Claim(
    sentence="L2 regularization suits non-negative weights only.",
    articles=("001",),
    criterion="On weights of both signs it costs more than 0.02 of accuracy.",
    measure=measure,
    judge=judge,
)
