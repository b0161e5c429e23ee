"""The weights of networks that learn nothing are drawn orthogonal, scaled by the gain of the activation or not."""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "orthogonal": ("initialization", {"method": "orthogonal"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Orthogonal initialization lowers the risk of vanishing and of exploding gradients.",
    articles=("001", "002"),
)
