"""The learning rate of networks that learn nothing falls along a cosine, from its first value or after a warm-up."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "cosine": ("schedule", {"decay": "cosine", "warmup": 0.0}),
        "cosine after warm-up": ("schedule", {"decay": "cosine", "warmup": 0.2}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Letting the learning rate decay helps to train steadily where gradients are unstable.",
    articles=("001",),
)
