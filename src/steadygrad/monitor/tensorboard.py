"""A sink that shows looks and findings in TensorBoard: totals by default, layers on demand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steadygrad.records.history import STEP_STATISTICS
from steadygrad.report.tensorboard import PREFIX, writer_class

__all__ = ["TensorBoard"]

EXTREMES = ("grad_rms", "update_ratio", "output_rms", "output_grad_rms", "dead_fraction", "saturated_fraction")


class TensorBoard:
    """Write looks as scalars and findings as text, all under ``steadygrad/``.

    Of the layers' numbers the smallest and the largest are shown, so that a hundred layers do not fill a hundred pages.

    Args:
        folder: Where TensorBoard looks for its event files; made if it does not exist.
        layers: Show every layer too.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, layers: bool = False) -> None:
        self._writer, self._layers = writer_class()(str(folder)), layers

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event of a monitor."""
        if event["event"] == "finding":
            self._writer.add_text(
                f"{PREFIX}/findings", f"**{event['code']}** {event['message']}. {event['advice']}", event["step"]
            )
        elif event["event"] == "look":
            self._write_look(event)

    def close(self) -> None:
        """Write what is not yet written."""
        self._writer.close()

    def _write_look(self, event: Mapping[str, Any]) -> None:
        step = event["step"]
        scalars = {name: event[name] for name in STEP_STATISTICS if name in event}
        for statistic in EXTREMES:
            seen = [value for value in event["layers"].get(statistic, ()) if value is not None]
            if seen:
                scalars |= {f"{statistic}/smallest": min(seen), f"{statistic}/largest": max(seen)}
        if self._layers:
            for statistic, column in event["layers"].items():
                for name, value in zip(event["names"], column, strict=False):
                    if value is not None:
                        scalars[f"{statistic}/{name}"] = value
        for name, value in scalars.items():
            if not math.isnan(value):
                self._writer.add_scalar(f"{PREFIX}/{name}", value, step)
