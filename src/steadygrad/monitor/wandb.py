"""A sink that shows looks and findings in Weights & Biases: totals by default, layers on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from steadygrad.monitor.scalars import scalars_of

__all__ = ["WandB"]

PREFIX = "steadygrad"


class Run(Protocol):
    """What ``wandb.init`` returns."""

    def log(self, data: dict[str, Any]) -> None:
        """Take values by name."""

    def define_metric(self, name: str, *, step_metric: str | None = None) -> Any:
        """Say which metric stands on the horizontal axis of another."""


class WandB:
    """Log looks and findings into a run of yours, all under ``steadygrad/``; the run is never started or finished here.

    The horizontal axis is ``steadygrad/step``, the optimizer step, as the run's own step counts calls of ``log``.
    Where you log with ``step=`` yourself, give the sink a second run: W&B drops rows whose step has been passed.

    Args:
        run: What ``wandb.init()`` returned (``pip install "steadygrad[wandb]"``).
        layers: Log every layer too.
    """

    def __init__(self, run: Run, layers: bool = False) -> None:
        self._run, self._layers = run, layers
        run.define_metric(f"{PREFIX}/step")
        run.define_metric(f"{PREFIX}/*", step_metric=f"{PREFIX}/step")

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Log one event of a monitor."""
        if event["event"] == "look":
            self._log(event["step"], scalars_of(event, self._layers))
        elif event["event"] == "finding":
            where = f" at {event['layer']}" if event["layer"] else ""
            words = f"{event['code']}{where}: {event['message']}. {event['advice']}"
            self._log(event["step"], {f"finding/{event['code']}": words})

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log({f"{PREFIX}/step": step} | {f"{PREFIX}/{name}": value for name, value in values.items()})
