"""Weights are held within bounds after every step of a network that explodes: entries, or the norm of each unit's
weights.
"""

from experiments.claims.rescue import EXPLODING, Rescue

TRIAL = Rescue(
    (EXPLODING,),
    {
        "entries at most 1": ("clip_weights", {"bound": 1.0}),
        "entries at most 0.1": ("clip_weights", {"bound": 0.1}),
        "norms at most 3": ("max_norm", {"bound": 3.0}),
        "norms at most 1": ("max_norm", {"bound": 1.0}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Limiting the size of weights, by clipping or by a bound on their norm, prevents exploding gradients.",
    articles=("000", "001", "004"),
)
