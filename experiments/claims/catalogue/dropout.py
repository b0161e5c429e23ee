"""Dropout behind the hidden activations of networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "p = 0.5": ("dropout", {"p": 0.5}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Dropout prevents exploding or vanishing gradients.",
    articles=("001",),
)
