"""Keras 3 on torch: one callback. Needs ``pip install "steadygrad[keras]"``."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import keras
import numpy as np

from steadygrad.integrations.keras import MonitorCallback

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(512, 16)).astype("float32")
model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0), loss="mse")
callback = MonitorCallback(every=5)
model.fit(x, np.sin(x[:, :1]), batch_size=64, epochs=2, verbose=0, callbacks=[callback])

history = callback.history
for layer, arrived, used in zip(
    history.layers, history.column("grad_norm")[0], history.column("grad_norm_used")[0], strict=True
):
    print(f"{layer}: gradient norm {arrived:.3g} before clipping, {used:.3g} after")
