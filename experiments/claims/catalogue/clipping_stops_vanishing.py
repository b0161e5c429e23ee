"""Two networks whose gradients vanish, one of sigmoids and one of weights too small, with and without clipping."""

from experiments.claims.rescue import SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL),
    {
        "norm at most 1": ("clip_by_global_norm", {"max_norm": 1.0}),
        "norm at most 0.1": ("clip_by_global_norm", {"max_norm": 0.1}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Clipping the norm of gradients prevents vanishing as well as explosion.",
    articles=("001",),
)
