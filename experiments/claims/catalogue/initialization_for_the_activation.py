"""The weights of networks that learn nothing are drawn again: scaled for the activation (He for ReLU; for sigmoids by
the mean-field gain, with biases that center).
"""

from experiments.claims.rescue import EXPLODING, SIGMOID, SMALL, Rescue

TRIAL = Rescue(
    (SIGMOID, SMALL, EXPLODING),
    {
        "drawn for the activation": ("initialization", {"method": "auto"}),
        "He": ("initialization", {"method": "he"}),
    },
)

CLAIM = TRIAL.claim(
    sentence="A proper initialization prevents both vanishing and exploding gradients.",
    articles=("000", "002", "003"),
)
