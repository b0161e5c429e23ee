"""The article's optimizers on its network of 128, 64 and 10 units, at its learning rates 0.001, 0.01 and 0.1 and weight
decays 0.001 and 0.1, batches of 100, on 5,000 images of MNIST and 5 passes (digits in the quick form). Underfitting is
accuracy on the training data. `steadygrad lab mnist-grid` runs the whole grid.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, train
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.training import TrainingSetup, seeded
from steadygrad.training.datasets import load

OPTIMIZERS = {"Adagrad": torch.optim.Adagrad, "Adam": torch.optim.Adam}
RATES = (0.001, 0.01, 0.1)
DECAYS = (0.001, 0.1)


def network(seed: int, inputs: int) -> nn.Sequential:
    with seeded(seed):
        return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def measure(seed: int, quick: bool) -> dict[str, float]:
    data = load("digits" if quick else "mnist")
    seen, test = (tuple(part[:5000] for part in half) for half in (data.train, data.test))
    setup = TrainingSetup(network(seed, seen[0].shape[1]), F.cross_entropy, seen, validation=test, batch_size=100)
    measured = {}
    for decay in DECAYS:
        for rate in RATES:
            for name, kind in OPTIMIZERS.items():
                tuned = setup.replace(optimizer=partial(kind, lr=rate, weight_decay=decay))
                training = train(tuned, seed, quick, steps=250)
                case = f"{name}, rate {rate:g}, decay {decay:g}"
                measured[f"{case}: train"] = accuracy(training, seen)
                measured[f"{case}: test"] = accuracy(training)
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for decay in DECAYS:
        for rate in RATES:
            cases = (f"{name}, rate {rate:g}, decay {decay:g}: train" for name in OPTIMIZERS)
            conditions.append(Condition(f"rate {rate:g}, decay {decay:g}", gains(outcomes, *cases), most=-0.02))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="On MNIST Adagrad underfits, and Adam does not.",
    articles=("001",),
    criterion="At equal settings Adagrad is at least 0.02 less often right on the training data than Adam.",
    measure=measure,
    judge=judge,
)
