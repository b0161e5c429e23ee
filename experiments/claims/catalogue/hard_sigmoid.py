"""The activations of networks that learn nothing are replaced by hard sigmoids."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "hard sigmoid": ("activation", {"to": "hardsigmoid"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Hard sigmoids help against unstable gradients.",
    articles=("001",),
)
