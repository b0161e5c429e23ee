"""Residual connections around the equal hidden layers of networks that learn nothing: with branches scaled by one over
the root of their number, and as the articles write them, unscaled.
"""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "scaled": ("residual", {}),
        "unscaled": ("residual", {"scale": 1.0}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Residual connections keep gradients from vanishing and from exploding.",
    articles=("000", "002", "004"),
)
