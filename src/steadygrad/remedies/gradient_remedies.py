"""Every gradient transform as a remedy: it is put on the optimizers that the set-up builds."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from steadygrad.records import Symptom
from steadygrad.remedies import adaptive_clipping, clipping, conditioning, history_clipping, spikes
from steadygrad.remedies.gradients import GradientTransform
from steadygrad.remedies.remedy import Card, Factory, Site
from steadygrad.remedies.thresholds import Threshold
from steadygrad.remedies.with_transforms import add_transform
from steadygrad.training import TrainingSetup

__all__ = [
    "adaptive_clip",
    "centralize_gradients",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_parameter_norm",
    "clip_by_quantile",
    "clip_by_running_norm",
    "clip_by_value",
    "clip_by_zscore",
    "clip_spikes",
    "gradient_noise",
    "normalize_gradients",
    "project_gradients",
    "skip_nonfinite",
    "skip_spikes",
    "zero_nonfinite",
]

_NOT_VANISHING = "Vanishing: it never makes a gradient larger."
_READ = "one read of the gradients a step, one write where it acts"


def _remedy(transform: Callable[..., GradientTransform], *treats: Symptom, **card: str) -> Factory[...]:
    """Return the remedy that puts ``transform`` on a set-up's optimizers, in place of an earlier one of its name.

    Its settings are the transform's own, thresholds as plain numbers.
    """
    name, settings = transform.__name__, _settings(transform)

    def change(setup: TrainingSetup, **chosen: Any) -> TrainingSetup:
        return add_transform(setup, name, transform, **chosen)

    change.__name__ = change.__qualname__ = name  # pickled by this module and name
    change.__doc__ = transform.__doc__
    change.__annotations__ = {parameter.name: parameter.annotation for parameter in settings}
    first = inspect.Parameter("setup", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    change.__signature__ = inspect.Signature([first, *settings])  # type: ignore[attr-defined]  # functions may have one
    return Factory(Card(name=name, treats=treats, site=Site.GRADIENT, **card), change)


def _settings(transform: Callable[..., GradientTransform]) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(transform)
    return [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            annotation=float if hints[parameter.name] == Threshold else hints[parameter.name],
        )
        for parameter in inspect.signature(transform).parameters.values()
        if isinstance(parameter.default, (int, float, str))
    ]


clip_by_global_norm = _remedy(
    clipping.clip_by_global_norm,
    Symptom.EXPLODING,
    Symptom.LEARNING_RATE,
    summary="Scale all gradients together so that their global norm stays within a bound.",
    reference="Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
    hurts="A bound far below the usual norm makes every step one of fixed length.",
    cost=_READ,
    not_for=_NOT_VANISHING,
    formula="g <- g * min(1, c / |g|), |g| over all gradients",
)

clip_by_value = _remedy(
    clipping.clip_by_value,
    Symptom.EXPLODING,
    summary="Clamp every entry of every gradient to a fixed range.",
    reference="torch.nn.utils.clip_grad_value_; Mikolov 2012, Statistical Language Models, sec. 3.2.2",
    hurts="It changes the direction of the step.",
    cost=_READ,
    not_for=_NOT_VANISHING,
    formula="g <- min(max(g, -c), c)",
)

clip_by_parameter_norm = _remedy(
    clipping.clip_by_parameter_norm,
    Symptom.EXPLODING,
    summary="Scale each parameter's gradient on its own so that its norm stays within a bound.",
    reference="clipnorm of Keras, https://keras.io/api/optimizers",
    hurts="Layers lose their scale relative to each other; a bound on norms is harder on large layers.",
    cost=_READ,
    not_for=_NOT_VANISHING,
    formula="g_i <- g_i * min(1, c / |g_i|) for each parameter i",
)

clip_by_block_rms = _remedy(
    clipping.clip_by_block_rms,
    Symptom.EXPLODING,
    summary="Scale each parameter's gradient so that its root mean square stays within a bound.",
    reference="Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235; clip_by_block_rms of optax",
    hurts="Layers lose their scale relative to each other.",
    cost=_READ,
    not_for=_NOT_VANISHING,
    formula="g_i <- g_i / max(1, rms(g_i) / c) for each parameter i",
)

project_gradients = _remedy(
    clipping.project_gradients,
    Symptom.EXPLODING,
    summary="Move all gradients to the nearest point of a ball around 0.",
    reference="Duchi et al. 2008, Efficient Projections onto the l1-Ball",
    hurts="Onto the L1 ball small entries become 0, onto the L-infinity ball the direction changes.",
    cost="for L1 several reads of the gradients a step, for the others as the clips that they are",
    not_for=_NOT_VANISHING,
    formula="L2: clip by global norm; L-infinity: clip by value; L1: sign(g) * max(|g| - s, 0) with sum = c",
)

adaptive_clip = _remedy(
    adaptive_clipping.adaptive_clip,
    Symptom.EXPLODING,
    summary="Bound each unit's gradient norm by a share of the norm of its weights.",
    reference="Brock et al. 2021, https://arxiv.org/abs/2102.06171",
    hurts="With adaptive optimizers, whose steps do not follow the gradient's size. Leave out the last linear layer.",
    cost="one read of the gradients and of the weights a step, one write where it acts",
    not_for=_NOT_VANISHING,
    formula="G_i <- G_i * min(1, c * max(|W_i|, eps) / |G_i|) for each unit i",
)

clip_by_quantile = _remedy(
    history_clipping.clip_by_quantile,
    Symptom.LEARNING_RATE,
    summary="Clip the global norm at a percentile of its own history.",
    reference="Seetharaman et al. 2020, https://arxiv.org/abs/2007.14469",
    hurts="By design it clips most steps. Norms that grow slowly to infinity take the threshold with them.",
    cost=_READ,
    not_for="Gradients that explode from the first step on: that step is not clipped. " + _NOT_VANISHING,
    formula="g <- g * min(1, c / |g|), c the p-th percentile of the norms so far",
)

clip_by_zscore = _remedy(
    history_clipping.clip_by_zscore,
    Symptom.LEARNING_RATE,
    summary="Clip the global norm where it lies too many deviations above its running mean.",
    reference="Kumar et al. 2025, https://arxiv.org/abs/2504.02507",
    hurts="While norms still change fast its mean is stale. It does not act in the first steps.",
    cost=_READ,
    not_for="Gradients that explode from the first step on: what is usual is not clipped. " + _NOT_VANISHING,
    formula="|g| <- mean + z0 * std * z0 / z where z = (|g| - mean) / std > z0",
)

clip_by_running_norm = _remedy(
    history_clipping.clip_by_running_norm,
    Symptom.EXPLODING,
    Symptom.LEARNING_RATE,
    summary="Clip each parameter's gradient at a multiple of the running mean of its own norm.",
    reference="Wang et al. 2025, https://arxiv.org/abs/2502.11034",
    hurts="Norms that grow for a good reason are held back by the average.",
    cost=_READ,
    not_for=_NOT_VANISHING,
    formula="g_i <- g_i * min(1, r * m_i / |g_i|), m_i the running mean of |g_i| after clipping",
)

clip_spikes = _remedy(
    spikes.clip_spikes,
    Symptom.LEARNING_RATE,
    summary="Clip single entries that are far above their own running mean.",
    reference="Huang et al. 2025, https://arxiv.org/abs/2501.06842",
    hurts="Rare features, as of rare words, have rare gradients: their first ones look like spikes.",
    cost="one number a parameter, several reads of the gradients a step",
    not_for="Gradients that explode from the first step on. " + _NOT_VANISHING,
    formula="g <- sign(g) * sqrt(r * v) where g^2 > r * v, v the running mean of g^2",
)

skip_nonfinite = _remedy(
    spikes.skip_nonfinite,
    Symptom.NONFINITE,
    summary="Skip steps whose gradients hold NaN or inf; raise if they go on.",
    reference="apply_if_finite of optax, https://optax.readthedocs.io",
    hurts="It hides a fault that seldom strikes.",
    cost="one read of the gradients a step",
    not_for="Weights that are NaN already, and networks whose every gradient is.",
    formula="no step where an entry is not finite",
)

skip_spikes = _remedy(
    spikes.skip_spikes,
    Symptom.LEARNING_RATE,
    summary="Skip steps whose gradient norm stands far out of those before.",
    reference="The skip-step optimizer of OLMo-core, https://github.com/allenai/OLMo-core",
    hurts="It throws batches away; if they are the hard ones, what they teach is lost.",
    cost="one read of the gradients a step",
    not_for="Gradients that explode from the first step on. " + _NOT_VANISHING,
    formula="no step where |g| > mean + k * std of the last norms",
)

zero_nonfinite = _remedy(
    spikes.zero_nonfinite,
    Symptom.NONFINITE,
    summary="Set entries of NaN and inf to 0 and keep the rest of the step.",
    reference="zero_nans of optax, https://optax.readthedocs.io",
    hurts="It hides the fault and biases the step. Prefer skip_nonfinite.",
    cost=_READ,
    not_for="Weights that are NaN already.",
    formula="g <- 0 where g is not finite",
)

centralize_gradients = _remedy(
    conditioning.centralize_gradients,
    summary="Subtract the mean of each unit's gradient.",
    reference="Yong et al. 2020, https://arxiv.org/abs/2004.01461",
    hurts="Weights that ought to move together, as into the last layer, cannot.",
    cost="two reads and one write of the gradients a step",
    not_for="Neither vanishing nor exploding gradients: it changes their size little.",
    formula="G_i <- G_i - mean(G_i) for each unit i",
)

normalize_gradients = _remedy(
    conditioning.normalize_gradients,
    Symptom.EXPLODING,
    summary="Scale gradients to norm 1, all together or each parameter's.",
    reference="Hazan et al. 2015, https://arxiv.org/abs/1507.02030",
    hurts="Steps never grow shorter near a minimum: the learning rate has to decay.",
    cost="one read and one write of the gradients a step",
    not_for="A signal that is lost on its way: it amplifies what is left of it.",
    formula="g <- g / |g|, or g_i <- g_i / |g_i| for each parameter i",
)

gradient_noise = _remedy(
    conditioning.gradient_noise,
    summary="Add Gaussian noise that fades with the steps.",
    reference="Neelakantan et al. 2015, https://arxiv.org/abs/1511.06807",
    hurts="Late in a training, and where gradients are small beside the noise.",
    cost="one random number a parameter and one write of the gradients a step",
    not_for="Neither vanishing nor exploding gradients: noise carries no signal to a layer that gets none.",
    formula="g <- g + N(0, eta / (1 + t)^0.55)",
)
