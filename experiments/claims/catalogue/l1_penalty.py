"""The absolute weights join the loss, by soft thresholding after each step, at two strengths."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "strength 0.0001": ("l1_penalty", {"strength": 1e-4}),
        "strength 0.01": ("l1_penalty", {"strength": 1e-2}),
    },
)

CLAIM = TRIAL.claim(
    sentence="L1 regularization bounds the weights and so keeps gradients in range.",
    articles=("000",),
)
