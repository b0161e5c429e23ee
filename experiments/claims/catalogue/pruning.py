"""The smallest nine tenths of the weights of each layer of networks that learn nothing are set to zero before training,
and stay there.
"""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "nine tenths": ("pruning", {"amount": 0.9}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Pruning connections helps to prevent exploding gradients.",
    articles=("004",),
)
