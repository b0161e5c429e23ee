"""The number of samples a step is changed in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "8 samples": ("batch_size", {"samples": 8}),
        "1024 samples": ("batch_size", {"samples": 1024}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Mini-batch gradient descent helps against exploding gradients.",
    articles=("001",),
)
