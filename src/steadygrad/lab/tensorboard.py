"""A grid's results in TensorBoard: one run a configuration and seed, its curves and its hyperparameters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from steadygrad.lab.result import Result
from steadygrad.report.tensorboard import PREFIX, writer_class

__all__ = ["EventFiles"]

SCORES = ("train", "validation", "best", "test")


class EventFiles:
    """Write results as they come, each run into a folder of its own, named by its number and configuration.

    Args:
        folder: Where TensorBoard looks for its event files; made if it does not exist.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._writer, self._folder, self._count = writer_class(), folder, 0

    def __call__(self, results: Sequence[Result]) -> None:
        """Write runs that were not written before."""
        for place, result in enumerate(results, self._count):
            self._write(result, self._folder / _name(place, result))
        self._count += len(results)

    def _write(self, result: Result, folder: Path) -> None:
        parameters = {k: v if isinstance(v, (bool, int, float)) else str(v) for k, v in result.configuration.items()}
        metrics = {f"{PREFIX}/final/{name}": getattr(result, name) for name in SCORES}
        with self._writer(str(folder)) as writer:
            for name, values in (("loss", result.losses), ("validation", result.scores)):
                for step, value in zip(result.looked, values, strict=False):
                    if math.isfinite(value):
                        writer.add_scalar(f"{PREFIX}/{name}", value, step)
            known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
            writer.add_hparams({**parameters, "outcome": result.outcome}, known, run_name=".")  # beside the curves


def _name(place: int, result: Result) -> str:
    words = ",".join(f"{axis}={value}" for axis, value in result.configuration.items())
    return f"{place:05d} {re.sub(r'[^A-Za-z0-9_.,=+-]', '_', words)[:100]}"
