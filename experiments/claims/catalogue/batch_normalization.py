"""Batch normalization before every hidden activation of networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "batch normalization": ("normalization", {"kind": "batch"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Batch normalization solves both vanishing and exploding gradients.",
    articles=("001", "002", "004"),
)
