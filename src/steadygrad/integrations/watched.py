"""What the callbacks of all frameworks do: watch one training after another, and write each to its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from steadygrad.monitor import Monitor, RunFolder

__all__ = ["WatchedTraining"]


class WatchedTraining:
    """A monitor that is attached when a training begins and writes a run folder when it ends; callbacks derive from it.

    Args:
        folder: Where to write the run for ``steadygrad show``; None writes nothing.
        settings: Arguments of :class:`~steadygrad.Monitor`: ``every``, ``on_alarm``, ``on_nonfinite`` ...

    Attributes:
        monitor: That of the training under way, or of the last one: ``history``, ``findings``, ``unseen``.
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        self._folder, self._settings = None if folder is None else Path(folder), settings
        self._run: RunFolder | None = None
        self._attached = False
        self.monitor = Monitor([], **settings)  # says now if a setting is wrong

    def begin(self, model: nn.Module, optimizers: Iterable[Optimizer], writes: bool = True) -> None:
        """Start watching; only the process that ``writes`` keeps a run folder."""
        settings = dict(self._settings)
        if self._folder is not None and writes:
            self._run = RunFolder(self._folder)
            settings["sinks"] = [*settings.get("sinks", ()), self._run.log]
        self.monitor = Monitor(model, list(optimizers), **settings).attach()
        self._attached = True

    def end(self, ended: str) -> None:
        """Stop watching, and say in the run folder how the training ended; does nothing after the first call."""
        if not self._attached:
            return
        self._attached = False
        self.monitor.detach()
        if self._run is not None:
            self._run.finish(self.monitor, ended)
            self._run = None
