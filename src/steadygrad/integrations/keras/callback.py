"""Watch a Keras training: ``model.fit(..., callbacks=[MonitorCallback()])``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from steadygrad.diagnosis import judge_history
from steadygrad.errors import SteadygradWarning, UsageError
from steadygrad.monitor.alarms import Alarms
from steadygrad.records import Finding, History

__all__ = ["MonitorCallback"]

Tensor = Any
"""A tensor of the backend; in a compiled training, one that has no value yet."""

# What a look keeps of each variable: sums of squares, the number of non-finite entries, and the learning rate.
KEPT = ("arrived", "used", "broken", "weight", "moved", "rate")


class MonitorCallback(keras.callbacks.Callback):
    """Watch ``fit``: norms of gradients before and after Keras's clipping, updates and weights by layer, alarms.

    Keras has no hook between gradients and update, so two methods of the model's optimizer are wrapped while ``fit``
    runs. They become part of the compiled training step, whether it is a graph, XLA or eager code, and leave a handful
    of numbers a variable behind that are fetched after the batch. With ``gradient_accumulation_steps`` the mean over
    the parts is seen; under a loss scaler, gradients are those without the scale, and steps that it skips are no steps.

    Not seen: activations, the weight decay that Keras applies before the update, trainings on torch with
    ``jit_compile=True``, trainings under a ``tf.distribute`` strategy. With ``steps_per_execution``, the last look of
    each execution is.

    Args:
        every: Look at every so many optimizer steps, the first one included.
        on_alarm: As in :class:`~steadygrad.Monitor`.

    Attributes:
        history: What was measured, layer by layer; layers are named by their Keras path.

    Example:
        >>> callback = MonitorCallback(every=10)
        >>> callback.findings
        []
    """

    def __init__(self, every: int = 10, on_alarm: str | Callable[[Finding], None] = "log") -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"MonitorCallback: expected every to be a whole number of at least 1, got {every!r}.")
        self.history = History()
        self._every, self._alarms = every, Alarms(on_alarm, ())
        self._steps = 0  # made by trainings before this one
        self._faulty = False
        self._unread = 0  # batches since the last look was fetched
        self._optimizer: Any = None
        self._own: tuple[Callable[..., Any], ...] = ()  # the optimizer's two methods
        self._arrived: list[Tensor] = []

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, first to last."""
        return self._alarms.findings

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Wrap the optimizer, and have the training step compiled with it."""
        self._unwrap()
        if not self._can_watch():
            return
        self._variables = list(self.model.trainable_variables)
        self._made = keras.Variable(0, dtype="int64", trainable=False, name="steps")
        empty = np.full((len(KEPT), len(self._variables)), np.nan)
        self._kept = keras.Variable(empty, dtype="float64", trainable=False, name="look")
        self._unread = self._every - 1  # fetch the first look at once
        optimizer = self.model.optimizer
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scaler
        self._own = (self._optimizer._clip_gradients, self._optimizer._backend_update_step)
        self._optimizer._clip_gradients = self._clip
        self._optimizer._backend_update_step = self._update
        self.model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Fetch a look if there is one, and judge."""
        self._unread += 1
        if self._own and self._unread >= self._every:
            self._fetch()
        self._alarms.raise_if_asked()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put back the optimizer's own methods."""
        if self._own:
            self._fetch()
            self._steps += int(ops.convert_to_numpy(self._made))
        self._unwrap()

    def _can_watch(self) -> bool:
        backend = keras.backend.backend()
        why = ""
        if backend == "torch" and self.model.jit_compile:
            why = "jit_compile=False"
        if backend == "tensorflow":
            import tensorflow as tf

            if tf.distribute.has_strategy() or self.model.distribute_strategy.num_replicas_in_sync > 1:
                why = "a training without tf.distribute"
        if why:
            warnings.warn(f"MonitorCallback: expected {why}; nothing is seen.", SteadygradWarning, stacklevel=3)
        return not why

    def _unwrap(self) -> None:
        if self._own:
            del self._optimizer._clip_gradients, self._optimizer._backend_update_step
            self._own = ()
            self.model.make_train_function(force=True)

    def _clip(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        self._arrived = list(grads)
        return self._own[0](grads)

    def _update(self, grads: Sequence[Tensor], variables: Sequence[Any], rate: Tensor) -> None:
        if self._faulty:
            self._own[1](grads, variables, rate)
            return
        due = ops.equal(self._made % self._every, 0)
        ops.cond(due, lambda: self._look(grads, variables, rate), lambda: self._own[1](grads, variables, rate))
        self._made.assign_add(1)
        self._arrived = []

    def _look(self, used: Sequence[Tensor], variables: Sequence[Any], rate: Tensor) -> None:
        """Make the update, and keep what is to be seen of it."""
        before = [ops.copy(variable) for variable in variables]
        self._own[1](used, variables, rate)
        try:
            kept = {
                id(variable): [
                    _square(arrived),
                    _square(grad),
                    ops.sum(ops.cast(~ops.isfinite(arrived), "float64")),
                    _square(old),
                    _square(ops.subtract(ops.cast(variable, "float64"), ops.cast(old, "float64"))),
                    ops.cast(rate, "float64"),
                ]
                for variable, arrived, grad, old in zip(variables, self._arrived, used, before, strict=True)
            }
            unseen = [ops.cast(math.nan, "float64")] * len(KEPT)
            columns = [ops.stack(kept.get(id(variable), unseen)) for variable in self._variables]
            self._kept.assign(ops.stack(columns, axis=1))
        except Exception as error:
            self._give_up(error)

    def _fetch(self) -> None:
        """Enter the last look into the history, unless it is there already."""
        if self._faulty:
            return
        self._unread = 0
        try:
            made = int(ops.convert_to_numpy(self._made))
            step = self._steps + (made - 1) // self._every * self._every
            if made and (not len(self.history) or step > self.history.steps[-1]):
                self._enter(step, np.asarray(ops.convert_to_numpy(self._kept)))
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._faulty = True
        warnings.warn(
            f"MonitorCallback: expected to watch on, got {type(error).__name__}: {error}. "
            "The training goes on unwatched.",
            SteadygradWarning,
            stacklevel=2,
        )

    def _enter(self, step: int, kept: np.ndarray) -> None:
        names = [variable.path.rpartition("/")[0] for variable in self._variables]
        self.history.add_layers(dict.fromkeys(names))
        rows = np.array([self.history.layers.index(name) for name in names])
        sizes = np.array([float(np.prod(variable.shape)) for variable in self._variables])
        matrix = np.array([len(variable.shape) > 1 for variable in self._variables])
        matrix |= ~np.isin(rows, rows[matrix])  # a layer without any weighs by all that it has
        arrived, used, broken, weight, moved, rate = kept
        seen = ~np.isnan(broken)

        def layerwise(values: np.ndarray, of: np.ndarray) -> np.ndarray:
            sums = np.full(len(self.history.layers), np.nan)
            for row in np.unique(rows[of]):
                sums[row] = values[of & (rows == row)].sum()
            return sums

        size, weights = layerwise(sizes, seen), layerwise(weight, seen & matrix)
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = {
                "grad_norm": np.sqrt(layerwise(arrived, seen)),
                "grad_rms": np.sqrt(layerwise(arrived, seen) / size),
                "grad_norm_used": np.sqrt(layerwise(used, seen)),
                "grad_rms_used": np.sqrt(layerwise(used, seen) / size),
                "grad_nonfinite": layerwise(broken, seen),
                "weight_rms": np.sqrt(weights / layerwise(sizes, seen & matrix)),
                "update_ratio": np.sqrt(layerwise(moved, seen & matrix) / weights),
            }
        totals = {name: math.sqrt(np.nansum(columns[name] ** 2)) for name in ("grad_norm", "grad_norm_used")}
        totals["lr"] = float(np.nanmax(rate))
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        if scale is not None:
            totals["loss_scale"] = float(ops.convert_to_numpy(scale))
        self.history.append(step, totals, columns)
        self._alarms.judge(judge_history(self.history), step)


def _square(tensor: Tensor) -> Tensor:
    """Return the sum of squares of the finite entries, in float64, which no float32 overflows or falls below."""
    tensor = ops.cast(ops.convert_to_tensor(tensor), "float64")
    return ops.sum(ops.square(ops.where(ops.isfinite(tensor), tensor, 0.0)))
