"""Watch a Hugging Face training: ``Trainer(..., callbacks=[MonitorCallback()])``."""

from __future__ import annotations

from typing import Any

from steadygrad.errors import MissingDependencyError
from steadygrad.integrations.watched import WatchedTraining

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingDependencyError(
        'transformers: the package is not installed. pip install "steadygrad[transformers]"'
    ) from error

__all__ = ["MonitorCallback"]


class MonitorCallback(WatchedTraining, TrainerCallback):
    """Watch ``trainer.train()``: gradients before and after clipping, updates, activations, alarms.

    The trainer's own hooks see gradients after clipping only; the monitor sees them as they arrive. A training that
    ends in an exception is detached when :meth:`end` is called or the next one begins.

    Args:
        folder: Where to write the run for ``steadygrad show``; None writes nothing.
        settings: Arguments of :class:`~steadygrad.Monitor`: ``every``, ``on_alarm``, ``on_nonfinite`` ...

    Example:
        >>> callback = MonitorCallback(every=10)
        >>> callback.monitor.findings
        []
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach the monitor."""
        self.end("failed")
        optimizer = kwargs["optimizer"]  # None where a plugin makes its own
        self.begin(kwargs["model"], [] if optimizer is None else [optimizer], writes=state.is_world_process_zero)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Detach it."""
        self.end("finished")
