"""A grid's results in TensorBoard: one run a configuration and seed, its curves and its hyperparameters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from steadygrad.lab.result import Result
from steadygrad.report.tensorboard import PREFIX, writer_class

__all__ = ["write_board"]

SCORES = ("train", "validation", "best", "test")


def write_board(results: Sequence[Result], folder: Path) -> None:
    """Write each run into a folder of its own, named by its number and configuration.

    Args:
        results: In any order.
        folder: Where TensorBoard looks for its event files; made if it does not exist.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
    """
    for place, result in enumerate(results):
        parameters = {k: v if isinstance(v, (bool, int, float)) else str(v) for k, v in result.configuration.items()}
        metrics = {f"{PREFIX}/final/{name}": getattr(result, name) for name in SCORES}
        with writer_class()(str(folder / _name(place, result))) as writer:
            for name, values in (("loss", result.losses), ("validation", result.scores)):
                for step, value in zip(result.looked, values, strict=False):
                    if math.isfinite(value):
                        writer.add_scalar(f"{PREFIX}/{name}", value, step)
            known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
            writer.add_hparams({**parameters, "outcome": result.outcome}, known, run_name=".")  # beside the curves


def _name(place: int, result: Result) -> str:
    words = ",".join(f"{axis}={value}" for axis, value in result.configuration.items())
    return f"{place:05d} {re.sub(r'[^A-Za-z0-9_.,=+-]', '_', words)[:100]}"
