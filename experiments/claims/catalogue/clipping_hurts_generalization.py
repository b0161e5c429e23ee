"""A healthy network of three ReLU layers trained for 400 steps with clipping at three norms and without: accuracy on
held-out digits, and its gap to accuracy on the training data, each at the best rate.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import make

NORMS = (1.0, 0.1, 0.01)


def measure(seed: int, quick: bool) -> dict[str, float]:
    setup = on_digits(stack(nn.ReLU, 3, seed))
    arms = {"unclipped": setup} | {
        f"norm {norm:g}": make("clip_by_global_norm", max_norm=norm)(setup) for norm in NORMS
    }
    measured = {}
    for name, arm in arms.items():
        training = best_training(arm, seed, quick, steps=400)
        measured[name] = accuracy(training)
        measured[f"{name}: gap"] = accuracy(training, training.setup.train) - measured[name]
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(
        tuple(
            Condition(f"gap at norm {norm:g}", gains(outcomes, f"norm {norm:g}: gap", "unclipped: gap"), least=0.01)
            for norm in NORMS
        )
    )


CLAIM = Claim(
    sentence="Gradient clipping makes networks generalize worse.",
    articles=("001",),
    criterion="The gap between accuracy on training data and on held-out data is more than 0.01 wider with clipping.",
    measure=measure,
    judge=judge,
)
