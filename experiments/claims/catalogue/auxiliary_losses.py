"""Linear heads with losses of their own on six inner layers, weighted by 0.3."""

from experiments.claims.rescue import SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL),
    {
        "6 heads": ("auxiliary_loss", {"heads": 6}),
        "6 heads and Adam": [("auxiliary_loss", {"heads": 6}), ("optimizer", {"name": "adam"})],
    },
)

CLAIM = TRIAL.claim(
    sentence="Auxiliary losses on inner layers ease vanishing gradients.",
    articles=("000",),
)
