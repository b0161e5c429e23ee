"""Fit a Keras model in each way that is asked for and print, as JSON, what was seen and what it had to be."""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np

from steadygrad.integrations.keras import MonitorCallback

RATE = 0.1
rng = np.random.default_rng(0)
x, y = rng.integers(0, 5, size=(64, 2)), 3 * rng.normal(size=(64, 1)).astype("float32")


def network(words: bool) -> keras.Model:
    layers = [keras.layers.Dense(8, activation="tanh", name="first"), keras.layers.Dense(1, name="last")]
    if words:  # the gradients of an embedding are sparse on TensorFlow
        layers = [keras.layers.Embedding(5, 3, name="words"), keras.layers.Flatten(), *layers]
    return keras.Sequential([keras.Input((2,)), *layers])


def gradients(model: keras.Model, rows: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Return the gradients of the mean squared error by the backend's own means."""
    variables = [variable.value for variable in model.trainable_variables]
    if keras.backend.backend() == "torch":
        import torch

        loss = (model(rows, training=True).float() - torch.tensor(target)).square().mean()
        return [grad.numpy() for grad in torch.autograd.grad(loss, variables)]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((tf.cast(model(rows, training=True), "float32") - target) ** 2)
    return [tf.convert_to_tensor(grad).numpy() for grad in tape.gradient(loss, variables)]


def by_hand(model: keras.Model, clip: float | None, parts: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return the norms of all layers before and after clipping, from a loop with SGD written out."""
    arrived, used = [], []
    for step in range(4 // parts):
        rows = [slice(16 * part, 16 * (part + 1)) for part in range(step * parts, (step + 1) * parts)]
        each = [gradients(model, x[row], y[row]) for row in rows]
        mean = [sum(grads) / parts for grads in zip(*each, strict=True)]
        norms = [norm([mean[-4], mean[-3]]), norm(mean[-2:])]
        norms = [norm(mean[:1]), *norms] if len(mean) > 4 else norms
        factor = min(1.0, clip / norm(norms)) if clip else 1.0
        arrived.append(norms)
        used.append([one * factor for one in norms])
        for variable, grad in zip(model.trainable_variables, mean, strict=True):
            variable.assign(keras.ops.convert_to_numpy(variable) - RATE * factor * grad)
    return arrived, used


def norm(arrays: list[Any]) -> float:
    return float(np.sqrt(sum(np.square(np.asarray(array, np.float64)).sum() for array in arrays)))


def fit(
    mode: str, clip: float | None, accumulate: int, policy: str, scaled: bool, words: bool, warm: bool
) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = network(words)
    start = [value.copy() for value in model.get_weights()]
    truth = by_hand(model, clip, accumulate)
    optimizer = keras.optimizers.SGD(
        RATE, global_clipnorm=clip, gradient_accumulation_steps=accumulate if accumulate > 1 else None
    )
    whole = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0) if scaled else optimizer
    model.compile(whole, loss="mse", jit_compile=mode == "jit", run_eagerly=mode == "eager")
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0}
    if warm:  # the training step is compiled already when the callback comes
        model.fit(x, y, **settings)
    model.set_weights(start)
    callback, later = MonitorCallback(every=1), MonitorCallback(every=3)
    model.fit(x, y, **settings, callbacks=[callback])
    if warm:
        model.fit(x, y, **settings)
        model.fit(x, y, **settings, epochs=2, callbacks=[later])
    history = callback.history
    return {
        "truth": truth,
        "seen": [history.column(name).tolist() for name in ("grad_norm", "grad_norm_used")],
        "layers": [name.rpartition("/")[2] for name in history.layers],
        "left": sorted({"_clip_gradients", "_backend_update_step"} & vars(optimizer).keys()),
        "ratios": history.column("update_ratio").tolist(),
        "rates": history.column("lr", of="step").tolist(),
        "steps": history.steps.tolist(),
        "later": later.history.steps.tolist(),
    }


print(json.dumps([fit(**cell) for cell in json.loads(sys.argv[1])]))
