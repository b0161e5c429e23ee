"""The smallest weights of each layer of networks that learn nothing are set to zero before training, and stay there."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "half": ("pruning", {"amount": 0.5}),
        "nine tenths": ("pruning", {"amount": 0.9}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Pruning connections helps to prevent exploding gradients.",
    articles=("004",),
)
