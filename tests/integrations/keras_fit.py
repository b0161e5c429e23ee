"""Fit a Keras model on the torch backend and print, as JSON, what was seen and what it had to be."""

from __future__ import annotations

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from steadygrad.integrations.keras import MonitorCallback

clip, accumulate, policy = float(sys.argv[1]) or None, int(sys.argv[2]) or None, sys.argv[3]
keras.utils.set_random_seed(0)
keras.config.set_dtype_policy(policy)
model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(8, activation="tanh", name="first"), keras.layers.Dense(1, name="last")]
)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)).astype("float32"), 3 * rng.normal(size=(64, 1)).astype("float32")
start = [value.copy() for value in model.get_weights()]


def by_hand() -> tuple[list[list[float]], list[list[float]]]:
    """Return norms of both layers before and after clipping, from a loop with torch's own autograd and SGD."""
    arrived, used = [], []
    parts = accumulate or 1
    for step in range(4 // parts):
        sums = [torch.zeros_like(v.value) for v in model.trainable_variables]
        for part in range(parts):
            rows = slice(16 * (step * parts + part), 16 * (step * parts + part + 1))
            target = torch.tensor(y[rows])
            loss = (model(torch.tensor(x[rows]), training=True).float() - target).square().mean()
            grads = torch.autograd.grad(loss, [v.value for v in model.trainable_variables])
            sums = [total + grad / parts for total, grad in zip(sums, grads, strict=True)]
        total = torch.cat([g.double().flatten() for g in sums]).norm()
        factor = min(1.0, clip / float(total)) if clip else 1.0
        norms = [float(torch.cat([sums[i].double().flatten(), sums[i + 1].double()]).norm()) for i in (0, 2)]
        arrived.append(norms)
        used.append([norm * factor for norm in norms])
        for variable, grad in zip(model.trainable_variables, sums, strict=True):
            variable.assign(variable.value.detach() - 0.1 * factor * grad)
    return arrived, used


truth = by_hand()
model.set_weights(start)
optimizer = keras.optimizers.SGD(0.1, global_clipnorm=clip, gradient_accumulation_steps=accumulate)
model.compile(optimizer, loss="mse")
callback = MonitorCallback(every=1)
model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0, callbacks=[callback])
history = callback.history
seen = [history.column(name).tolist() for name in ("grad_norm", "grad_norm_used")]
left = sorted(name for name in ("_clip_gradients", "_backend_update_step") if name in vars(optimizer))
ratios = history.column("update_ratio")
print(json.dumps({"truth": truth, "seen": seen, "layers": history.layers, "left": left, "ratios": ratios.tolist()}))
