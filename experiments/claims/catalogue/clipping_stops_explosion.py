"""A network whose weights are drawn far too large is trained with and without gradient clipping."""

from experiments.claims.rescue import EXPLODING, Rescue

TRIAL = Rescue(
    (EXPLODING,),
    {
        "norm at most 1": ("clip_by_global_norm", {"max_norm": 1.0}),
        "norm at most 0.1": ("clip_by_global_norm", {"max_norm": 0.1}),
        "entries at most 0.01": ("clip_by_value", {"max_value": 0.01}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Clipping gradients at a threshold keeps them from exploding and makes training possible.",
    articles=("000", "002", "003"),
)
