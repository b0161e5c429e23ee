"""Diagnose sick and healthy Keras models and print, as JSON, what was found and what had to be seen."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
from keras import layers

from steadygrad.integrations.keras import diagnose

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
rows = rng.normal(size=(64, 8)).astype("float32")
labels = (rows[:, 0] > 0).astype("int64")
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def stack(depth: int, activation: str, head: str | None, units: int = 2, start: str = "glorot_uniform") -> keras.Model:
    hidden = [layers.Dense(32, activation=activation, kernel_initializer=start) for _ in range(depth)]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(units, activation=head)])


def residual() -> keras.Model:
    """A block with what a pass changes: moving statistics, the state of dropout's random numbers."""
    start = keras.Input((8,))
    hidden = layers.BatchNormalization()(layers.Dense(16, activation="relu", name="below")(start))
    above = layers.Dense(16, activation=layers.LeakyReLU(), name="above")(layers.Dropout(0.2)(hidden))
    return keras.Model(start, layers.Dense(1, name="head")(hidden + above))


class Subclass(keras.Model):
    """Not built before it is called, and with an operation between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(16, activation="relu"), layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.second(keras.ops.sin(self.first(x)))


def picture() -> keras.Model:
    parts = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input((12, 12, 1)), *parts, layers.Softmax()])


def frozen() -> keras.Model:
    """A layer that does not learn is a layer all the same."""
    model = stack(3, "relu", None, start="he_normal")
    model.layers[1].trainable = False
    return model


def sequence() -> keras.Model:
    parts = [layers.Embedding(20, 8), layers.LSTM(8), layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input((12,), dtype="int32"), *parts])


def attention() -> keras.Model:
    start = keras.Input((6, 8))
    hidden = layers.LayerNormalization()(start + layers.MultiHeadAttention(2, 4)(start, start))
    return keras.Model(start, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))


SPARSE, BINARY, column = "sparse_categorical_crossentropy", "binary_crossentropy", labels[:, None]
CASES: dict[str, tuple[keras.Model, Any, np.ndarray, np.ndarray]] = {
    "deep sigmoid": (stack(20, "sigmoid", "softmax"), SPARSE, rows, labels),
    "deep relu": (stack(10, "relu", "softmax", start="he_normal"), SPARSE, rows, labels),
    "double softmax": (stack(3, "relu", "softmax", start="he_normal"), FROM_LOGITS, rows, labels),
    "scores as probabilities": (stack(3, "relu", None, start="he_normal"), SPARSE, rows, labels),
    "scores": (stack(3, "relu", None, start="he_normal"), FROM_LOGITS, rows, labels),
    "softmax over one unit": (stack(2, "relu", "softmax", 1, "he_normal"), BINARY, rows, column),
    "sigmoid over one unit": (stack(2, "relu", "sigmoid", 1, "he_normal"), BINARY, rows, column),
    "residual": (residual(), "mse", rows, rows[:, :1]),
    "subclass": (Subclass(), "mse", rows, rows[:, :1]),
    "unscaled": (residual(), "mse", 1000 * rows, rows[:, :1]),
    "picture": (picture(), SPARSE, rng.random((16, 12, 12, 1)), rng.integers(0, 10, 16)),
    "sequence": (sequence(), BINARY, rng.integers(0, 20, (16, 12)), column[:16]),
    "frozen": (frozen(), FROM_LOGITS, rows, labels),
    "attention": (attention(), "mse", rng.normal(size=(16, 6, 8)).astype("float32"), rows[:16, :1]),
}


def state(model: keras.Model) -> list[np.ndarray]:
    kept = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in kept]


def by_hand(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the RMS of the gradient of each kernel, by the backend's own means."""
    kernels = [variable for variable in model.trainable_variables if variable.name == "kernel"]
    values = [variable.value for variable in kernels]
    if keras.backend.backend() == "torch":
        import torch

        grads = torch.autograd.grad(model.compute_loss(x, torch.tensor(y), model(x, training=True)), values)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        grads = tape.gradient(loss, values)
    return {
        kernel.path.rpartition("/")[0]: float(np.sqrt(np.square(keras.ops.convert_to_numpy(grad)).mean()))
        for kernel, grad in zip(kernels, grads, strict=True)
    }


said = {}
for name, (model, loss, x, y) in CASES.items():
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    if not model.built:
        diagnose(model, x, y)  # builds it
    before = state(model)
    diagnosis = diagnose(model, x, y)
    same = all(np.array_equal(old, new) for old, new in zip(before, state(model), strict=True))
    seen = {stats.name: stats for stats in diagnosis.observation.layers}
    said[name] = {
        "codes": [finding.code for finding in diagnosis.findings],
        "same": same and not any("call" in vars(layer) for layer in model._flatten_layers()),
        "layers": [[layer.name, layer.role, layer.follows] for layer in diagnosis.blueprint.layers],
        "fans": [layer.fan_in for layer in diagnosis.blueprint.layers],
        "functions": diagnosis.blueprint.functions,
    }
    if name in ("deep relu", "scores", "subclass"):
        truth = by_hand(model, x, y)
        said[name]["grads"] = [[seen[layer].weight_grad.rms, rms] for layer, rms in truth.items()]
        moved = {layer: seen[layer].update_ratio * seen[layer].weight.rms for layer in truth}
        said[name]["steps"] = [[moved[layer], 0.1 * rms] for layer, rms in truth.items()]
print(json.dumps(said))
