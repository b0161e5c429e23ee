"""Every cure, as a plain function usable alone and as a ``Remedy`` that changes a training set-up."""

from steadygrad.remedies.activation import Step, activation
from steadygrad.remedies.adaptive_clipping import adaptive_clip
from steadygrad.remedies.adversarial import adversarial_samples, fgsm
from steadygrad.remedies.attach import Attachment, attach, attachment_of
from steadygrad.remedies.augmentation import augmentation, random_shift, relative_noise
from steadygrad.remedies.auxiliary import auxiliary_loss, auxiliary_outputs, plan_auxiliary
from steadygrad.remedies.branches import zero_residual_
from steadygrad.remedies.catalogue import CATALOGUE, find, make
from steadygrad.remedies.centering import CenteredAdam, centered_updates
from steadygrad.remedies.clipping import (
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_parameter_norm,
    clip_by_value,
    project_gradients,
)
from steadygrad.remedies.conditioning import centralize_gradients, gradient_noise, normalize_gradients
from steadygrad.remedies.constraints import ClipWeights, MaxNorm, WeightStep, after_step, clip_weights, max_norm
from steadygrad.remedies.data import batch_size, standardize_inputs, standardize_targets
from steadygrad.remedies.decay import SoftThreshold, WeightDecay, add_weights, l1_penalty, l2_penalty, weight_decay
from steadygrad.remedies.dropout import dropout, less_dropout
from steadygrad.remedies.filling import delta_orthogonal_, he_, lecun_, orthogonal_, scaled_, small_, xavier_
from steadygrad.remedies.glossary import GLOSSARY, Term
from steadygrad.remedies.gradients import Gradients, GradientTransform, chain
from steadygrad.remedies.head import head
from steadygrad.remedies.history_clipping import clip_by_quantile, clip_by_running_norm, clip_by_zscore
from steadygrad.remedies.initialization import initialization
from steadygrad.remedies.insertion import inserted_activation
from steadygrad.remedies.isometry import depth_std, isometric_
from steadygrad.remedies.length import longer_training
from steadygrad.remedies.logits import soft_cap, z_loss
from steadygrad.remedies.losses import loss
from steadygrad.remedies.lsuv import looks_linear_, lsuv_
from steadygrad.remedies.normalization import normalization
from steadygrad.remedies.norms import global_norm
from steadygrad.remedies.optimizers import learning_rate, optimizer
from steadygrad.remedies.parametrization import orthogonal_weights, spectral_norm, weight_norm, weight_standardization
from steadygrad.remedies.plan import Plan, Undo
from steadygrad.remedies.pruning import pruning
from steadygrad.remedies.recurrent import recurrent
from steadygrad.remedies.recurrent_weights import chrono_, forget_bias_, identity_recurrent_, orthogonal_recurrent_
from steadygrad.remedies.remedy import Card, Remedy, Site, compose, remedy
from steadygrad.remedies.residual import residual
from steadygrad.remedies.schedules import Curve, schedule
from steadygrad.remedies.smoothing import label_smoothing
from steadygrad.remedies.spikes import clip_spikes, skip_nonfinite, skip_spikes, zero_nonfinite
from steadygrad.remedies.tally import Deeds
from steadygrad.remedies.thresholds import Decaying, Threshold
from steadygrad.remedies.truncation import detached, segments, truncated_backpropagation
from steadygrad.remedies.unfreeze import unfreeze

__all__ = [
    "CATALOGUE",
    "GLOSSARY",
    "Attachment",
    "Card",
    "CenteredAdam",
    "ClipWeights",
    "Curve",
    "Decaying",
    "Deeds",
    "GradientTransform",
    "Gradients",
    "MaxNorm",
    "Plan",
    "Remedy",
    "Site",
    "SoftThreshold",
    "Step",
    "Term",
    "Threshold",
    "Undo",
    "WeightDecay",
    "WeightStep",
    "activation",
    "adaptive_clip",
    "add_weights",
    "adversarial_samples",
    "after_step",
    "attach",
    "attachment_of",
    "augmentation",
    "auxiliary_loss",
    "auxiliary_outputs",
    "batch_size",
    "centered_updates",
    "centralize_gradients",
    "chain",
    "chrono_",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_parameter_norm",
    "clip_by_quantile",
    "clip_by_running_norm",
    "clip_by_value",
    "clip_by_zscore",
    "clip_spikes",
    "clip_weights",
    "compose",
    "delta_orthogonal_",
    "depth_std",
    "detached",
    "dropout",
    "fgsm",
    "find",
    "forget_bias_",
    "global_norm",
    "gradient_noise",
    "he_",
    "head",
    "identity_recurrent_",
    "initialization",
    "inserted_activation",
    "isometric_",
    "l1_penalty",
    "l2_penalty",
    "label_smoothing",
    "learning_rate",
    "lecun_",
    "less_dropout",
    "longer_training",
    "looks_linear_",
    "loss",
    "lsuv_",
    "make",
    "max_norm",
    "normalization",
    "normalize_gradients",
    "optimizer",
    "orthogonal_",
    "orthogonal_recurrent_",
    "orthogonal_weights",
    "plan_auxiliary",
    "project_gradients",
    "pruning",
    "random_shift",
    "recurrent",
    "relative_noise",
    "remedy",
    "residual",
    "scaled_",
    "schedule",
    "segments",
    "skip_nonfinite",
    "skip_spikes",
    "small_",
    "soft_cap",
    "spectral_norm",
    "standardize_inputs",
    "standardize_targets",
    "truncated_backpropagation",
    "unfreeze",
    "weight_decay",
    "weight_norm",
    "weight_standardization",
    "xavier_",
    "z_loss",
    "zero_nonfinite",
    "zero_residual_",
]
