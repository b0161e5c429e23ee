"""Gradient descent is replaced by Adam, Adagrad or RMSprop in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "Adam": ("optimizer", {"name": "adam"}),
        "Adagrad": ("optimizer", {"name": "adagrad"}),
        "RMSprop": ("optimizer", {"name": "rmsprop"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Adaptive learning rates as those of Adam and Adagrad control the size of gradients and prevent both "
    "troubles.",
    articles=("001", "002", "004"),
)
