"""The inputs of networks that learn nothing get noise of a tenth of their deviation while they train."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "noise of 0.1": ("augmentation", {"noise": 0.1}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Data augmentation helps against exploding gradients.",
    articles=("001",),
)
