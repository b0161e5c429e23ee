"""One batch into a compiled Keras model, one Blueprint and one Observation out; the model is left as found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch
from keras import ops
from torch import Tensor, nn

from steadygrad.diagnosis import judge
from steadygrad.diagnosis.wiring import PROBABILITY_LOSSES
from steadygrad.errors import SetupError
from steadygrad.integrations.keras.blueprint import draw_blueprint
from steadygrad.integrations.keras.layers import Layer
from steadygrad.integrations.keras.on_tensorflow import TensorFlow
from steadygrad.integrations.keras.on_torch import Torch
from steadygrad.integrations.keras.recorder import Gradients, Recorder
from steadygrad.records import Blueprint, Diagnosis, LayerStats, Moments, Observation
from steadygrad.signals import batch_deviation, moments, sum_of_squares
from steadygrad.signals.moments import squared_distance
from steadygrad.signals.probe import output_stats, weight_stats
from steadygrad.training.blame import blamed

__all__ = ["diagnose", "probe"]


def diagnose(
    model: Layer, x: Any, y: Any, sample_weight: Any = None, *, select: Iterable[str] = (), ignore: Iterable[str] = ()
) -> Diagnosis:
    """Look at one batch of a compiled Keras model and say what is wrong; nothing is trained.

    The rules are those of :func:`steadygrad.diagnose`, with its codes. Weights, optimizer, metrics and random states
    are left bit for bit as found; a model that was not yet built is built.

    Args:
        model: A compiled model, on the torch or the TensorFlow backend.
        x: One batch of inputs, as ``model.fit`` takes it.
        y: Its targets.
        sample_weight: Its weights in the loss.
        select: Rule codes or prefixes (``"SG1"``) to apply; all by default.
        ignore: Rule codes or prefixes to leave out.

    Raises:
        SetupError: If the model is not compiled, or model, loss or optimizer fail on the batch.
        UsageError: If a code matches no rule.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="softmax")])
        >>> model.compile("sgd", "binary_crossentropy")
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> diagnose(model, x, x[:, :1] > 0, select=["SG602"]).findings[0].code
        'SG602'
    """
    return judge(*probe(model, x, y, sample_weight), select=select, ignore=ignore)


def probe(model: Layer, x: Any, y: Any, sample_weight: Any = None) -> tuple[Blueprint, Observation]:
    """Measure one forward pass in training mode, one backward pass and one first step of the optimizer.

    Raises:
        SetupError: If the model is not compiled, or model, loss or optimizer fail on the batch.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None or model.loss is None:
        raise SetupError(
            "keras: expected a model compiled with an optimizer and a loss. Call model.compile(...) first."
        )
    with blamed("data: the batch cannot be read", x, y):
        batch = keras.tree.map_structure(
            lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), (x, y, sample_weight)
        )
    if not model.built:
        with blamed("model: building it failed", x):
            model(batch[0])
    if not model.trainable_variables:
        raise SetupError("model: expected trainable variables, got none. There is nothing to train.")
    with _preserved(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras's own words on heads and missing gradients
        return _measure(model, batch)


def _measure(model: Layer, batch: Any) -> tuple[Blueprint, Observation]:
    weights = {id(v): nn.Parameter(_torch(v), requires_grad=v.trainable) for v in model.variables if _is_float(v)}
    backend = Torch() if keras.backend.backend() == "torch" else TensorFlow()
    recorder = Recorder(model, backend, weights)
    sources = frozenset[int]()

    def forward(batch: Any) -> tuple[Any, Any]:
        nonlocal sources
        x, y, sample_weight = batch
        with recorder, blamed("model: forward failed"):
            output = model(x, training=True)
        sources = recorder.sources(keras.tree.flatten(output)[:1])
        with blamed("loss: failed"):
            return model.compute_loss(x, y, output, sample_weight, training=True), output

    variables = model.trainable_variables
    seen = backend.differentiate(forward, batch, recorder, variables)
    loss = float(ops.convert_to_numpy(seen.loss))
    grads = {id(v): grad for v, grad in zip(variables, seen.grads, strict=True) if grad is not None}
    optimizer, stepped = _step(model, grads if math.isfinite(loss) else {})
    steps = {id(weights[key]): squared_distance(after, weights[key]) for key, after in stepped.items()}
    arrived = {id(weights[key]): moments(_torch(grad), zeros=False) for key, grad in grads.items()}
    before = {id(weight): weight.detach() for weight in weights.values()}
    calls = recorder.calls
    stats = [
        replace(weight_stats(call, before, {}, arrived, steps, _output_stats(seen, place, call)), name=call.name)
        for place, call in enumerate(calls)
    ]
    output, target = _first(seen.output), _first(batch[1])
    entries = [_torch(entry) for entry in seen.entries]
    inputs = [_torch(leaf) for leaf in keras.tree.flatten(batch[0])]
    blueprint = draw_blueprint(model, calls, sources, recorder.functions, inputs, entries, output, target, optimizer)
    head = blueprint.head_layer  # the gradient at a probability p is 1/p, and TensorFlow's Keras passes it by
    if head is not None and blueprint.head is not None and blueprint.loss in PROBABILITY_LOSSES:
        stats[head] = replace(stats[head], output_grad=None)
    return blueprint, Observation(
        loss=loss,
        layers=tuple(stats),
        grad_norm=math.sqrt(sum(sum_of_squares(_torch(grad)) for grad in grads.values())),
        output=None if output is None else moments(output, zeros=False),
        output_signal=None if output is None else batch_deviation(output),
    )


def _output_stats(seen: Gradients, place: int, call: Any) -> LayerStats:
    """Return what the output of a call and the gradient there say."""
    output, grad = seen.outputs[place], seen.output_grads[place]
    if output is None:
        return LayerStats(call.name)
    values = _torch(output)
    if values.dim() > 3 and keras.config.image_data_format() == "channels_last":
        values = values.movedim(-1, 1)  # units of images lie along dimension 1, as torch has them
    found: Moments | None = None if grad is None else moments(_torch(grad), zeros=False)
    return replace(output_stats(call, values), output_grad=found)


def _step(model: Layer, grads: dict[int, Any]) -> tuple[Any, dict[int, Tensor]]:
    """Make the first step of an optimizer made like the model's; return it, and the weights after by ``id``."""
    own = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    with blamed("optimizer: making another one like it failed"):
        optimizer = type(own).from_config(own.get_config() | {"gradient_accumulation_steps": None})
    variables = [variable for variable in model.trainable_variables if id(variable) in grads]
    if not variables:
        return optimizer, {}
    with blamed("optimizer: step failed"), torch.no_grad():
        optimizer.apply([grads[id(variable)] for variable in variables], variables)
    return optimizer, {id(variable): _torch(variable) for variable in variables}


@contextmanager
def _preserved(model: Layer) -> Iterator[None]:
    """Give all variables of a model their values back: weights, moving statistics, random states, metrics."""
    variables = {id(variable): variable for variable in [*model.variables, *model.metrics_variables]}
    before = {key: np.array(ops.convert_to_numpy(variable)) for key, variable in variables.items()}
    try:
        yield
    finally:
        for key, variable in variables.items():
            variable.assign(before[key])


def _is_float(variable: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)


def _first(nest: Any) -> Tensor | None:
    leaves = [leaf for leaf in keras.tree.flatten(nest) if leaf is not None]
    return _torch(leaves[0]) if leaves else None


def _torch(tensor: Any) -> Tensor:
    """Return a copy as a torch tensor on the CPU, in float32, float64 or a type of integers."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype in ("float16", "bfloat16"):
        tensor = ops.cast(tensor, "float32")
    return torch.from_numpy(np.array(ops.convert_to_numpy(tensor)))
