"""The squared weights join the loss, at two strengths."""

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue

TRIAL = Rescue(
    (SIGMOID, EXPLODING),
    {
        "strength 0.01": ("l2_penalty", {"strength": 1e-2}),
        "strength 1": ("l2_penalty", {"strength": 1.0}),
    },
)

CLAIM = TRIAL.claim(
    sentence="L2 regularization bounds the weights and so keeps gradients from exploding or vanishing.",
    articles=("000", "001"),
)
