"""Gaussian noise that fades with time joins the gradients of networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "eta 1": ("gradient_noise", {"eta": 1.0}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Adding noise while training helps against vanishing or exploding gradients.",
    articles=("001",),
)
