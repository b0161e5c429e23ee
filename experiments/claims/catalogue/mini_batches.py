"""The number of samples a step is changed in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "8 samples": ("batch_size", {"samples": 8}),
        "512 samples": ("batch_size", {"samples": 512}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Mini-batch gradient descent helps against exploding gradients.",
    articles=("001",),
)
