"""Watch a Keras 3 training on the torch backend: ``model.fit(..., callbacks=[MonitorCallback()])``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.diagnosis import judge_history
from steadygrad.errors import MissingDependencyError, SteadygradWarning, UsageError
from steadygrad.monitor.alarms import Alarms
from steadygrad.records import Finding, History

try:
    import keras
except ImportError as error:
    if error.name != "keras":  # by default, Keras imports TensorFlow
        raise UsageError(f"keras: {error}. Set KERAS_BACKEND=torch before Keras is imported.") from error
    raise MissingDependencyError('keras: the package is not installed. pip install "steadygrad[keras]"') from error

__all__ = ["MonitorCallback"]


class MonitorCallback(keras.callbacks.Callback):
    """Watch ``fit``: norms of gradients before and after Keras's clipping, updates and weights by layer, alarms.

    Keras has no hook between gradients and update, so two methods of the model's optimizer are wrapped while ``fit``
    runs. With ``gradient_accumulation_steps`` the mean over the parts is seen. Not seen: activations, and the weight
    decay that Keras applies before the update.

    Args:
        every: Look at every so many optimizer steps, the first one included.
        on_alarm: As in :class:`~steadygrad.Monitor`.

    Attributes:
        history: What was measured, layer by layer; layers are named by their Keras path.

    Raises:
        UsageError: If Keras runs on another backend than torch.

    Example:
        >>> callback = MonitorCallback(every=10)
        >>> callback.findings
        []
    """

    def __init__(self, every: int = 10, on_alarm: str | Callable[[Finding], None] = "log") -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise UsageError(
                f"MonitorCallback: expected Keras on torch, got {keras.backend.backend()!r}. "
                "Set KERAS_BACKEND=torch before Keras is imported."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"MonitorCallback: expected every to be a whole number of at least 1, got {every!r}.")
        self.history = History()
        self._every, self._alarms = every, Alarms(on_alarm, ())
        self._steps, self._faulty = 0, False
        self._wrapped: tuple[Any, ...] = ()  # the optimizer and its own two methods
        self._arrived: list[Tensor | None] = []

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, first to last."""
        return self._alarms.findings

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Wrap the optimizer."""
        self._unwrap()
        if self.model.jit_compile:
            warnings.warn("MonitorCallback: expected jit_compile=False; nothing is seen.", SteadygradWarning, 2)
            return
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scaler: gradients come unscaled
        self._wrapped = (optimizer, optimizer._clip_gradients, optimizer._backend_update_step)
        optimizer._clip_gradients = self._clip
        optimizer._backend_update_step = self._update

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put back the optimizer's own methods."""
        self._unwrap()

    def _unwrap(self) -> None:
        if self._wrapped:
            optimizer = self._wrapped[0]
            del optimizer._clip_gradients, optimizer._backend_update_step
            self._wrapped = ()

    def _clip(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        self._arrived = list(grads)
        return self._wrapped[1](grads)

    def _update(self, grads: Sequence[Tensor | None], variables: Sequence[Any], rate: Any) -> None:
        due = not self._faulty and self._steps % self._every == 0
        before = [variable.value.detach().clone() for variable in variables] if due else []
        self._wrapped[2](grads, variables, rate)
        if due:
            try:
                self._look(grads, variables, before, float(rate))
            except Exception as error:
                self._faulty = True
                warnings.warn(
                    f"MonitorCallback: expected to watch on, got {type(error).__name__}: {error}. "
                    "The training goes on unwatched.",
                    SteadygradWarning,
                    stacklevel=2,
                )
        self._steps += 1
        self._arrived = []
        self._alarms.raise_if_asked()

    def _look(
        self, used: Sequence[Tensor | None], variables: Sequence[Any], before: Sequence[Tensor], rate: float
    ) -> None:
        names = [variable.path.rpartition("/")[0] for variable in variables]
        self.history.add_layers(dict.fromkeys(names))
        rows = np.array([self.history.layers.index(name) for name in names])
        sizes = np.array([float(tensor.numel()) for tensor in before])
        matrix = np.array([tensor.dim() > 1 for tensor in before])
        matrix |= ~np.isin(rows, rows[matrix])  # a layer without any weighs by all that it has
        moved = [variable.value.detach() - old for variable, old in zip(variables, before, strict=True)]
        arrived = _squares(self._arrived)
        sums = {
            "arrived": self._sum(rows, arrived),
            "used": self._sum(rows, _squares(used)),
            "size": self._sum(rows, np.where(np.isnan(arrived), np.nan, sizes)),
            "broken": self._sum(rows, [math.nan if g is None else float((~g.isfinite()).sum()) for g in self._arrived]),
            "weight": self._sum(rows, np.where(matrix, _squares(before), np.nan)),
            "weights": self._sum(rows, np.where(matrix, sizes, np.nan)),
            "moved": self._sum(rows, np.where(matrix, _squares(moved), np.nan)),
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = {
                "grad_norm": np.sqrt(sums["arrived"]),
                "grad_rms": np.sqrt(sums["arrived"] / sums["size"]),
                "grad_norm_used": np.sqrt(sums["used"]),
                "grad_rms_used": np.sqrt(sums["used"] / sums["size"]),
                "grad_nonfinite": sums["broken"],
                "weight_rms": np.sqrt(sums["weight"] / sums["weights"]),
                "update_ratio": np.sqrt(sums["moved"] / sums["weight"]),
            }
        totals = {name: math.sqrt(np.nansum(columns[name] ** 2)) for name in ("grad_norm", "grad_norm_used")}
        self.history.append(self._steps, {**totals, "lr": rate}, columns)
        self._alarms.judge(judge_history(self.history), self._steps)

    def _sum(self, rows: np.ndarray, values: Iterable[float]) -> np.ndarray:
        """Return the sum over the variables of each layer; NaN where none was seen."""
        values = np.asarray(values)
        sums = np.full(len(self.history.layers), np.nan)
        for row in np.unique(rows[~np.isnan(values)]):
            sums[row] = values[(rows == row) & ~np.isnan(values)].sum()
        return sums


def _squares(tensors: Iterable[Tensor | None]) -> np.ndarray:
    """Return the sum of squares of each tensor, in float64; NaN for None."""
    sums = [math.nan if t is None else float(torch.linalg.vector_norm(t, dtype=torch.float64)) ** 2 for t in tensors]
    return np.array(sums)
