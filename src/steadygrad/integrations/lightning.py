"""Watch a Lightning training: ``Trainer(callbacks=[MonitorCallback()])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steadygrad.errors import MissingDependencyError
from steadygrad.integrations.watched import WatchedTraining
from steadygrad.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingDependencyError(
        'lightning: the package is not installed. pip install "steadygrad[lightning]"'
    ) from error

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Watch ``trainer.fit``: gradients before and after clipping, updates, activations, alarms.

    Under distributed strategies every process watches itself, and the first one writes.

    Args:
        folder: Where to write the run for ``steadygrad show``; None writes nothing.
        settings: Arguments of :class:`~steadygrad.Monitor`: ``every``, ``on_alarm``, ``on_nonfinite`` ...

    Example:
        >>> callback = MonitorCallback(every=10)
        >>> callback.monitor.findings
        []
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        self._watched = WatchedTraining(None if folder is None else Path(folder), settings)

    @property
    def monitor(self) -> Monitor:
        """The monitor of the training under way, or of the last one: ``history``, ``findings``, ``unseen``."""
        return self._watched.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the monitor."""
        self._watched.begin(pl_module, trainer.optimizers, writes=trainer.is_global_zero)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detach it."""
        self._watched.end("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach it from a training that failed."""
        interrupted = isinstance(exception, KeyboardInterrupt)
        self._watched.end("interrupted" if interrupted else f"failed with {type(exception).__name__}")
