"""Gradients are divided by their norm, over all layers or in each, in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "over all": ("normalize_gradients", {"over": "all"}),
        "in each tensor": ("normalize_gradients", {"over": "each"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Normalizing gradients keeps them from exploding and from vanishing.",
    articles=("000",),
)
