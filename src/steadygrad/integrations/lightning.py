"""Watch a Lightning training: ``Trainer(callbacks=[MonitorCallback()])``."""

from __future__ import annotations

from steadygrad.errors import MissingDependencyError
from steadygrad.integrations.watched import WatchedTraining

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingDependencyError(
        'lightning: the package is not installed. pip install "steadygrad[lightning]"'
    ) from error

__all__ = ["MonitorCallback"]


class MonitorCallback(WatchedTraining, Callback):
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the monitor."""
        self.begin(pl_module, trainer.optimizers, writes=trainer.is_global_zero)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detach it."""
        self.end("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach it from a training that failed."""
        interrupted = isinstance(exception, KeyboardInterrupt)
        self.end("interrupted" if interrupted else f"failed with {type(exception).__name__}")
