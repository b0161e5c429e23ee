"""A sink that shows looks and findings in TensorBoard: totals by default, layers on demand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.monitor.scalars import scalars_of
from steadygrad.report.tensorboard import PREFIX, writer_class

__all__ = ["TensorBoard"]

SCALES = ("grad_rms", "update_ratio", "output_rms", "output_grad_rms")  # which lie decades apart


class TensorBoard:
    """Write looks as scalars and histograms, and findings as text, all under ``steadygrad/``.

    Of the layers' numbers the smallest and the largest are shown, so that a hundred layers do not fill a hundred pages,
    and how the decimal logarithms of all of them spread.

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
            for name, value in scalars_of(event, self._layers).items():
                self._writer.add_scalar(f"{PREFIX}/{name}", value, event["step"])
            for name in SCALES:
                seen = [value for value in event["layers"].get(name, ()) if value is not None and 0 < value < np.inf]
                if len(seen) > 1:
                    self._writer.add_histogram(f"{PREFIX}/log10 {name} of layers", np.log10(seen), event["step"])

    def close(self) -> None:
        """Write what is not yet written."""
        self._writer.close()
