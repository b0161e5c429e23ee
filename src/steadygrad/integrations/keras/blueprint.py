"""Static facts of a compiled Keras model, in the terms of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from torch import Tensor

from steadygrad.integrations.keras.layers import Layer
from steadygrad.records import Blueprint, Role, TargetKind
from steadygrad.signals.blueprint import SHAPE_KEEPERS, layers_of
from steadygrad.signals.moments import range_of
from steadygrad.signals.recorder import Call, Sources
from steadygrad.training import TrainingSetup

__all__ = ["draw_blueprint"]

# Losses by what they are called in torch, from probabilities and from raw scores.
LOSSES = {
    "mean_squared_error": "mse_loss",
    "mean_absolute_error": "l1_loss",
    "huber": "huber_loss",
    "binary_crossentropy": "binary_cross_entropy",
    "kl_divergence": "kl_div",
}
SCORE_LOSSES = {
    "binary_crossentropy": "binary_cross_entropy_with_logits",
    "categorical_crossentropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
}
REDUCTIONS = {"sum_over_batch_size": "mean", "mean_with_sample_weight": "mean"}
KEEPERS = SHAPE_KEEPERS | {"Reshape", "Permute", "Cropping1D", "SpatialDropout1D", "SpatialDropout2D"}


def draw_blueprint(
    model: Layer,
    calls: list[Call],
    output_sources: Sources,
    functions: set[str],
    inputs: Sequence[Tensor],
    entries: Sequence[Tensor],
    output: Tensor | None,
    target: Tensor | None,
    optimizer: Any,
) -> Blueprint:
    """Put together what one recorded pass and the model's ``compile`` say.

    Args:
        model: The model.
        calls: Its recorded layer calls.
        output_sources: Positions of the calls that made its output.
        functions: Names of operations between layers.
        inputs: The tensors of the batch that went in.
        entries: What entered each first weight layer.
        output: The model's output, the first one if it has several.
        target: The target of that output.
        optimizer: The optimizer that makes its steps.
    """
    head = max(output_sources, default=None)
    while head is not None and calls[head].role is Role.OTHER and calls[head].kind in KEEPERS:
        head = max(calls[head].follows, default=None)
    loss, from_scores, reduction = _loss(model)
    return Blueprint(
        layers=layers_of(calls),
        loss=SCORE_LOSSES.get(loss, loss) if from_scores else LOSSES.get(loss, loss),
        loss_shapes=_shapes(output, target),
        loss_reduction=REDUCTIONS.get(reduction, reduction),
        head=calls[head].kind if head is not None and calls[head].role is Role.ACTIVATION else None,
        head_layer=head,
        output=None if output is None else range_of(output),
        inputs=tuple(range_of(tensor) for tensor in inputs if tensor.is_floating_point()),
        entries=tuple(range_of(tensor) for tensor in entries),
        target=None if target is None else range_of(target),
        target_kind=_target_kind(loss, target),
        optimizer=type(optimizer).__name__,
        optimizer_settings=_settings(optimizer),
        steps=TrainingSetup.steps,
        batch=len(inputs[0]) if inputs else 0,
        parameters=model.count_params(),
        scheduled=not isinstance(optimizer.get_config().get("learning_rate"), float),
        learned=int(keras.ops.convert_to_numpy(model.optimizer.iterations)) > 0,
        functions=tuple(sorted(functions)),
    )


def _loss(model: Layer) -> tuple[str, bool, str]:
    """Return name of the loss, whether it takes raw scores, and how it reduces; of several, those of the first."""
    found = next((leaf for leaf in keras.tree.flatten(model.loss) if leaf is not None), None)
    found = keras.losses.get(found) if isinstance(found, str) else found
    function = getattr(found, "fn", found)
    name = getattr(function, "__name__", type(function).__name__)
    settings = getattr(found, "_fn_kwargs", {})
    return name, bool(settings.get("from_logits")), getattr(found, "reduction", None) or "sum_over_batch_size"


def _shapes(output: Tensor | None, target: Tensor | None) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that the loss compares; none where Keras brings a target of shape ``(n,)`` to ``(n, 1)``."""
    if output is None or target is None or output.dim() != target.dim():
        return ()
    return tuple(output.shape), tuple(target.shape)


def _target_kind(loss: str, target: Tensor | None) -> TargetKind:
    if target is None:
        return TargetKind.NONE
    if loss.startswith("sparse_"):
        return TargetKind.CLASS_INDEX
    return TargetKind.BINARY if bool(((target == 0) | (target == 1)).all()) else TargetKind.REAL


def _settings(optimizer: Any) -> dict[str, float]:
    numbers = {
        key: float(value)
        for key, value in optimizer.get_config().items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    for key in ("learning_rate", "ema_momentum"):  # the latter is of weights kept beside the trained ones
        numbers.pop(key, None)
    return {"lr": float(np.asarray(keras.ops.convert_to_numpy(optimizer.learning_rate)))} | numbers
