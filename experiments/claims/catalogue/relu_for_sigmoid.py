"""The sigmoids of a network are replaced by ReLUs, with PyTorch's own initialization and with He's."""

from experiments.claims.rescue import SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID,),
    {
        "ReLU": ("activation", {"to": "relu"}),
        "ReLU drawn by He": [("activation", {"to": "relu"}), ("initialization", {"method": "he"})],
        "leaky ReLU": ("activation", {"to": "leaky_relu"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="ReLU and its variants ease vanishing gradients because their slope is 1 where they are positive.",
    articles=("000", "002"),
)
