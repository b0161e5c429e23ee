"""The activations of networks that learn nothing are replaced by Swish (SiLU)."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "SiLU": ("activation", {"to": "silu"}),
        "SiLU drawn for it": [("activation", {"to": "silu"}), ("initialization", {"method": "auto"})],
    },
)

CLAIM = TRIAL.claim(
    sentence="Newer activations as Swish help against unstable gradients.",
    articles=("001",),
)
