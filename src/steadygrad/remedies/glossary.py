"""What articles and papers call things, and which remedy that is here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GLOSSARY", "Term"]


@dataclass(frozen=True, slots=True)
class Term:
    """One technique by the name that others give it.

    Attributes:
        name: The name.
        remedy: The remedy in the catalogue; empty if there is none.
        note: What to set, in what the name misleads, or why there is no remedy.
    """

    name: str
    remedy: str
    note: str = ""


GLOSSARY: tuple[Term, ...] = (
    # Gradients
    Term("clip by norm", "clip_by_global_norm"),
    Term("AGC", "adaptive_clip"),
    Term("adaptive gradient clipping", "adaptive_clip"),
    Term("AutoClip", "clip_by_quantile"),
    Term("ZClip", "clip_by_zscore"),
    Term("AdaGC", "clip_by_running_norm"),
    Term("SPAM", "clip_spikes", "Its clip; its momentum reset is not here."),
    Term("gradient centralization", "centralize_gradients"),
    Term("accumulated clipping", "clip_by_global_norm", "By the norm over all gradients."),
    Term("projection", "project_gradients"),
    Term("dynamic threshold", "clip_by_global_norm", "Thresholds may be schedules, decaying with the steps."),
    Term(
        "gradient clipping",
        "clip_by_global_norm",
        "It bounds explosion; it never raises a small gradient.",
    ),
    Term("simple clipping", "clip_by_global_norm"),
    Term(
        "cumulative clipping",
        "clip_by_global_norm",
        "By the norm over all gradients: the same thing.",
    ),
    Term("fixed threshold clipping", "clip_by_value", "A fixed minimum and maximum for each entry."),
    Term("dynamic threshold clipping", "clip_by_global_norm", "Thresholds may be schedules, decaying with the steps."),
    Term(
        "projection clipping",
        "project_gradients",
        "Onto the L2 ball it is clipping by norm, onto the L-infinity ball by value.",
    ),
    Term("adaptive clipping", "adaptive_clip"),
    Term(
        "AdaGrad-TC",
        "adaptive_clip",
        "No paper of that name was found. It reads like adaptive clipping or a dynamic threshold.",
    ),
    Term("gradient normalization", "normalize_gradients"),
    Term("gradient noise", "gradient_noise"),
    # Weights
    Term("regularization", "weight_decay", "Or l2_penalty, l1_penalty, dropout. None of them treats gradients."),
    Term("L1", "l1_penalty"),
    Term("L2", "l2_penalty"),
    Term("spectral normalization", "spectral_norm"),
    Term("weight normalization", "weight_norm"),
    Term("weight constraints", "max_norm", "A constraint bounds weights. L1 and L2, often called so, are penalties."),
    Term("limit on weights", "max_norm"),
    Term(
        "weight clipping",
        "clip_weights",
        "By entry. To bound the norm of a layer: max_norm(over='layer').",
    ),
    Term("pruning", "pruning", "It does not cure explosion."),
    Term("L1 regularization", "l1_penalty"),
    Term("L2 regularization", "l2_penalty", "It fits weights of any sign and makes them smaller, not more different."),
    Term(
        "weight decay by a constant factor",
        "weight_decay",
        "Multiplying all weights by 0.99 is decay, not gradient clipping.",
    ),
    # Initialization
    Term("weight initialization", "initialization"),
    Term("Xavier", "initialization", "initialization(method='xavier')"),
    Term("He", "initialization", "initialization(method='he')"),
    Term("LSUV", "initialization", "initialization(method='lsuv')"),
    Term("LeCun initialization", "initialization", "initialization(method='lecun')"),
    Term("delta-orthogonal initialization", "initialization", "initialization(method='delta_orthogonal')"),
    Term("looks-linear initialization", "initialization", "initialization(method='looks_linear')"),
    Term("zero-init residual", "initialization", "initialization(method='zero_residual')"),
    Term("identity-recurrent network", "initialization", "initialization(method='identity_recurrent')"),
    Term("forget-gate bias", "initialization", "initialization(method='forget_bias')"),
    Term("chrono initialization", "initialization", "initialization(method='chrono')"),
    Term(
        "small random initialization",
        "initialization",
        "initialization(method='small'): for shallow networks only; deep ones vanish.",
    ),
    Term(
        "Xavier initialization", "initialization", "initialization(method='xavier'). The uniform bounds are -a and a."
    ),
    Term("Glorot initialization", "initialization", "initialization(method='xavier')"),
    Term(
        "He initialization",
        "initialization",
        "initialization(method='he'). The variance is twice LeCun's, the deviation sqrt(2) times.",
    ),
    Term("Kaiming initialization", "initialization", "initialization(method='he')"),
    Term("orthogonal initialization", "initialization", "initialization(method='orthogonal')"),
    # Architecture
    Term("leaky ReLU", "activation", "activation(to='leaky_relu')"),
    Term("PReLU", "activation", "activation(to='prelu')"),
    Term("ELU", "activation", "activation(to='elu')"),
    Term("SELU", "activation", "activation(to='selu')"),
    Term("GELU", "activation", "activation(to='gelu')"),
    Term("Mish", "activation", "activation(to='mish')"),
    Term("hard swish", "activation", "activation(to='hardswish')"),
    Term(
        "BatchNorm", "normalization", "normalization(kind='batch'). It makes gradients explode in deep plain networks."
    ),
    Term("layer normalization", "normalization", "normalization(kind='layer')"),
    Term("group normalization", "normalization", "normalization(kind='group')"),
    Term("RMSNorm", "normalization", "normalization(kind='rms')"),
    Term("ReZero", "residual", "residual(kind='rezero')"),
    Term("LayerScale", "residual", "residual(kind='layerscale')"),
    Term("SkipInit", "residual", "residual(kind='skipinit')"),
    Term("ReLU", "activation", "activation(to='relu')"),
    Term("ReLU variants", "activation", "activation(to='leaky_relu'), 'elu', 'selu', 'gelu', 'silu' or 'mish'"),
    Term("ReLU6", "activation", "activation(to='relu6'). Its range is 0 to 6; it dies on both sides."),
    Term("Swish", "activation", "activation(to='silu'): SiLU is Swish with beta 1, and not ReLU."),
    Term("SiLU", "activation", "activation(to='silu')"),
    Term("tanh", "activation", "activation(to='tanh'). It is smooth, not discrete, and it saturates."),
    Term(
        "hard sigmoid", "activation", "activation(to='hardsigmoid'). It saturates exactly: deep networks vanish sooner."
    ),
    Term(
        "step function",
        "activation",
        "activation(to='step'). Its slope is 0: it learns through a surrogate gradient alone.",
    ),
    Term(
        "batch normalization",
        "normalization",
        "normalization(kind='batch'). It makes gradients explode in deep plain networks.",
    ),
    Term("residual connections", "residual"),
    Term("ResNet", "residual"),
    Term("auxiliary loss", "auxiliary_loss"),
    Term("dropout", "dropout", "It regularizes; with the factor 1 / (1 - p) while training."),
    Term("LSTM", "recurrent", "recurrent(kind='lstm')"),
    Term("GRU", "recurrent", "recurrent(kind='gru')"),
    # Loss and data
    Term("FGSM", "adversarial_samples"),
    Term("logit cap", "soft_cap"),
    Term("standardization", "standardize_inputs", "And standardize_targets for the targets."),
    Term("truncated BPTT", "truncated_backpropagation"),
    Term("mini-batch SGD", "batch_size"),
    Term("label smoothing", "label_smoothing", "It is for classes, two or many, not for several labels at once."),
    Term("data augmentation", "augmentation"),
    Term("noise while training", "augmentation", "Noise on the inputs; for noise on the gradients see gradient_noise."),
    Term("adversarial samples", "adversarial_samples"),
    Term("mini-batch gradient descent", "batch_size"),
    # Optimizer
    Term("AdamW", "optimizer", "optimizer(name='adamw')"),
    Term("Nesterov momentum", "optimizer", "optimizer(name='nesterov')"),
    Term("smaller learning rate", "learning_rate"),
    Term("learning-rate decay", "schedule", "schedule(decay='cosine'), 'step' or 'exponential'"),
    Term("warm-up", "schedule", "schedule(warmup=0.05), a share of the steps"),
    Term("adaptive learning rate", "optimizer"),
    Term("SGD", "optimizer", "optimizer(name='sgd')"),
    Term("momentum", "optimizer", "optimizer(name='momentum') or 'nesterov'"),
    Term("dynamic gradient descent", "optimizer", "We take it to mean momentum: optimizer(name='momentum')."),
    Term("AdaGrad", "optimizer", "optimizer(name='adagrad'). It sums squares; an average of them is RMSprop."),
    Term("RMSprop", "optimizer", "optimizer(name='rmsprop')"),
    Term("Adadelta", "optimizer", "optimizer(name='adadelta')"),
    Term("Adam", "optimizer", "optimizer(name='adam')"),
    # Elsewhere
    Term("DBN", "pretraining"),
    Term("RBM", "pretraining"),
    Term(
        "restricted Boltzmann machine",
        "pretraining",
        "Or steadygrad.boltzmann, for one by itself.",
    ),
    Term("greedy layer-wise pretraining", "pretraining"),
    Term("deep belief network", "pretraining", "Or `steadygrad dbn`, for one that is trained and sampled itself."),
    Term("contrastive divergence", "pretraining", "It is how pretraining learns each layer."),
    Term("per-example clipping", "", "For differential privacy; use Opacus."),
    Term(
        "per-segment truncated BPTT",
        "",
        "It needs a loop of your own, with `segments` and `detached` of steadygrad.remedies.",
    ),
    Term("TensorBoard", "", "It shows gradients, it does not change them."),
)
"""What the literature calls things, the five articles that this project started from above all."""
