"""Gradient descent is replaced by Adam or Adagrad in networks that learn nothing."""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "Adam": ("optimizer", {"name": "adam"}),
        "Adagrad": ("optimizer", {"name": "adagrad"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Adaptive learning rates as those of Adam and Adagrad control the size of gradients and prevent both "
    "troubles.",
    articles=("001", "002", "004"),
)
