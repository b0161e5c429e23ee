"""Half of each batch of networks that learn nothing is replaced by adversarial samples (fast gradient sign)."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "step of 0.1": ("adversarial_samples", {"epsilon": 0.1}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Training with adversarial samples helps against exploding gradients.",
    articles=("001",),
)
