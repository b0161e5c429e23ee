"""The sigmoids of a network that learns nothing are replaced by ReLU6, and the ReLUs of one that explodes."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "ReLU6": ("activation", {"to": "relu6"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="ReLU6 eases vanishing gradients because it bounds its output.",
    articles=("004",),
)
