"""Digits below 5 against the others, by a softmax over two classes and by one logit, with smoothing of 0.1 and without:
accuracy of three ReLU layers after 150 steps.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, digits, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains, values
from steadygrad.training import TrainingSetup, seeded


def binary(seed: int, outputs: int, loss) -> TrainingSetup:
    model = stack(nn.ReLU, 3, seed)
    with seeded(seed):
        model[-1] = nn.Linear(model[-1].in_features, outputs)
    train, test = (
        (x, (y < 5).float()[:, None] if outputs == 1 else (y < 5).long()) for x, y in (digits().train, digits().test)
    )
    return on_digits(model).replace(loss=loss, train=train, validation=test)


def smooth_logit_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, 0.9 * target + 0.05)


ARMS = {
    "two classes, plain": (2, F.cross_entropy),
    "two classes, smoothed": (2, partial(F.cross_entropy, label_smoothing=0.1)),
    "one logit, plain": (1, F.binary_cross_entropy_with_logits),
    "one logit, smoothed": (1, smooth_logit_loss),
}


def measure(seed: int, quick: bool) -> dict[str, float]:
    return {
        name: accuracy(best_training(binary(seed, outputs, loss), seed, quick))
        for name, (outputs, loss) in ARMS.items()
    }


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for form in ("two classes", "one logit"):
        loss = gains(outcomes, f"{form}, smoothed", f"{form}, plain")
        conditions.append(Condition(f"{form}: worse than plain", loss, most=-0.05))
        conditions.append(Condition(f"{form}: does not learn", values(outcomes, f"{form}, smoothed"), most=0.7))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="Label smoothing cannot be used for two classes.",
    articles=("001",),
    criterion="With smoothing, accuracy on two classes falls by more than 0.05, or stays below 0.7 (chance is 0.5).",
    measure=measure,
    judge=judge,
)
