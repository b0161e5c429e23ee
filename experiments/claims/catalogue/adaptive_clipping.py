"""The article names a clipping that adapts by itself without a source; tried are adaptive gradient clipping (AGC), the
running norm (AdaGC) and a quantile of past norms (AutoClip), on the network that explodes.
"""

from experiments.claims.rescue import EXPLODING, Rescue

TRIAL = Rescue(
    (EXPLODING,),
    {
        "by the weights' norms": ("adaptive_clip", {}),
        "by running norms": ("clip_by_running_norm", {}),
        "by a quantile": ("clip_by_quantile", {}),
    },
)

CLAIM = TRIAL.claim(
    sentence="Gradient clipping whose threshold adapts helps against exploding gradients.",
    articles=("001",),
)
