"""Targets are smoothed in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "by 0.1": ("label_smoothing", {"amount": 0.1}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Label smoothing prevents exploding or vanishing gradients.",
    articles=("001",),
)
