"""The absolute weights join the loss, by soft thresholding after each step, at a strength of 0.001."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "strength 0.001": ("l1_penalty", {"strength": 1e-3}),
    },
)

CLAIM = TRIAL.claim(
    sentence="L1 regularization bounds the weights and so keeps gradients in range.",
    articles=("000",),
)
