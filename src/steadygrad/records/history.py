"""What a monitor measured over a training, in columns: step by layer by statistic."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.errors import DataFileError, MissingDependencyError, UsageError
from steadygrad.records.observation import LayerStats, Moments, Observation

__all__ = ["LAYER_STATISTICS", "STEP_STATISTICS", "History"]

LAYER_STATISTICS = (
    "grad_norm",  # of all own parameters, unscaled, before clipping (and before reduction across DDP ranks)
    "grad_rms",
    "grad_norm_used",  # the same as the optimizer used it: after reduction and clipping
    "grad_rms_used",
    "grad_nonfinite",
    "weight_rms",  # of the parameters with two or more dimensions; of all where there are none
    "update_ratio",  # rms(step) / rms(weight) of those
    "output_rms",
    "output_mean",
    "output_abs_max",
    "output_signal",  # RMS of the deviation from the mean over the batch
    "zero_fraction",
    "dead_fraction",
    "saturated_fraction",
    "output_nonfinite",
    "output_numel",
    "output_grad_rms",
    "output_grad_nonfinite",
    "output_grad_subnormal",  # of a float16 gradient's nonzero entries, the share below float16's normal numbers
)
STEP_STATISTICS = (
    "loss",
    "grad_norm",
    "grad_norm_used",
    "loss_scale",
    "skipped",
    "lr",
    "backwards",
    "undivided",  # of these, those from a mean that nothing divides
    "stale",  # 1 where the first backward pass found the gradients of the step before
    "early_schedules",  # steps of the learning-rate scheduler before the optimizer's first
    "weight_change_outside",  # relative change of all weights' norm between the step and the next
)
_PLACE = {name: place for place, name in enumerate(LAYER_STATISTICS)}
_FIRST_ROWS, _FEWEST_ROWS = 64, 32


class History:
    """Columns of numbers, one row a look; NaN is what was not seen.

    Memory is bounded: at the limit, every second look of the older half goes, so that the recent past stays dense and
    the distant past grows thin.

    Args:
        layers: Names of the layers; more may come later.
        limit: Bytes that the columns may take.

    Example:
        >>> history = History(["fc"])
        >>> history.append(0, {"loss": 2.3}, {"grad_norm": [0.5]})
        >>> history.column("grad_norm")
        array([[0.5]])
        >>> history.column("loss", of="step")
        array([2.3])
    """

    def __init__(self, layers: Iterable[str] = (), limit: int = 64 * 2**20) -> None:
        self._layers: list[str] = list(layers)
        self._limit = limit
        self._count = 0
        self._steps = np.zeros(0, np.int64)
        self._totals = np.zeros((0, len(STEP_STATISTICS)))
        self._values = np.zeros((0, len(self._layers), len(LAYER_STATISTICS)))

    def __len__(self) -> int:
        return self._count

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the columns."""
        return tuple(self._layers)

    @property
    def steps(self) -> np.ndarray:
        """Step of every look: the number of optimizer steps made before it."""
        return self._steps[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return self._values.nbytes + self._totals.nbytes + self._steps.nbytes

    def add_layers(self, names: Iterable[str]) -> None:
        """Add columns of layers that were not there before; NaN for the looks so far."""
        known = set(self._layers)
        new = [name for name in names if name not in known]
        if new:
            self._layers += new
            more = np.full((len(self._values), len(new), len(LAYER_STATISTICS)), np.nan)
            self._values = np.concatenate([self._values, more], axis=1)

    def append(self, step: int, totals: Mapping[str, float], values: Mapping[str, Any] | np.ndarray) -> None:
        """Add one look.

        Args:
            step: Its step, larger than the last one's.
            totals: Numbers of the whole network, by names of ``STEP_STATISTICS``.
            values: Numbers of the layers: arrays of shape ``(layers,)`` by names of ``LAYER_STATISTICS``, or one array
                of shape ``(layers, statistics)``.

        Raises:
            UsageError: If the step is not larger than the last.
        """
        if self._count and step <= self._steps[self._count - 1]:
            raise UsageError(
                f"History: expected a step after {self._steps[self._count - 1]}, got {step}. Append looks in order."
            )
        self._make_room()
        row = self._count
        self._steps[row] = step
        self._totals[row] = [totals.get(name, math.nan) for name in STEP_STATISTICS]
        self._values[row] = np.nan
        if isinstance(values, np.ndarray):
            self._values[row, : len(values)] = values
        else:
            for name, column in values.items():
                self._values[row, :, _PLACE[name]] = column
        self._count += 1

    def column(self, statistic: str, of: str = "layers") -> np.ndarray:
        """Return one statistic of all looks: shape ``(looks, layers)``, or ``(looks,)`` with ``of="step"``.

        Raises:
            UsageError: If there is no such statistic.
        """
        names = LAYER_STATISTICS if of == "layers" else STEP_STATISTICS
        if statistic not in names:
            raise UsageError(f"History: expected one of {', '.join(names)}, got {statistic!r}.")
        table = self._values if of == "layers" else self._totals
        return table[: self._count, ..., names.index(statistic)]

    def nearest(self, step: int) -> int:
        """Return the step of the last look at ``step`` or before; of the first look if there is none before.

        Raises:
            UsageError: If there was no look yet.
        """
        if not self._count:
            raise UsageError("History: expected a look, there was none yet. Make a step first.")
        return int(self.steps[max(int(np.searchsorted(self.steps, step, side="right")) - 1, 0)])

    def at(self, step: int) -> Observation:
        """Return the look at ``step`` as an observation.

        Of gradients and weights only the RMS is kept: their ``mean`` and ``zero_fraction`` are NaN, and ``abs_max``
        stands at the RMS, its lower bound.

        Raises:
            UsageError: If there was no look at this step.
        """
        row = int(np.searchsorted(self.steps, step))
        if row == self._count or self.steps[row] != step:
            near = f"The nearest one is at step {self.nearest(step)}." if self._count else "There was none yet."
            raise UsageError(f"History: expected a step with a look, got {step}. {near}")
        total = dict(zip(STEP_STATISTICS, self._totals[row].tolist(), strict=True))
        stats = tuple(
            _stats(name, values) for name, values in zip(self._layers, self._values[row].tolist(), strict=True)
        )
        return Observation(loss=total["loss"], layers=stats, grad_norm=total["grad_norm"], step=step)

    def to_pandas(self) -> Any:
        """Return a pandas data frame, one line a step and layer.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                'History: pandas is not installed. pip install "steadygrad[pandas]"'
            ) from error
        index = pandas.MultiIndex.from_product([self.steps, self._layers], names=["step", "layer"])
        flat = self._values[: self._count].reshape(-1, len(LAYER_STATISTICS))
        return pandas.DataFrame(flat, index=index, columns=list(LAYER_STATISTICS))

    def to_parquet(self, path: Path) -> None:
        """Write the table of :meth:`to_pandas` to a Parquet file.

        Raises:
            MissingDependencyError: If pandas or pyarrow is not installed.
        """
        frame = self.to_pandas()
        try:
            import pyarrow  # noqa: F401  # pandas would tell of two engines
        except ImportError as error:
            raise MissingDependencyError(
                'History: pyarrow is not installed. pip install "steadygrad[pandas]"'
            ) from error
        frame.to_parquet(path, engine="pyarrow")

    def save(self, path: Path) -> None:
        """Write the columns to an ``.npz`` file, names as text."""
        np.savez_compressed(
            path,
            steps=self.steps,
            totals=self._totals[: self._count],
            values=self._values[: self._count],
            layers=np.array(self._layers, dtype=np.str_),
            statistics=np.array(LAYER_STATISTICS),
            step_statistics=np.array(STEP_STATISTICS),
        )

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a file that :meth:`save` wrote; columns are found by name, unknown ones left out.

        Raises:
            DataFileError: If it is none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                data = {key: file[key] for key in file.files}
            history = cls(data["layers"].tolist())
            layer_names, step_names = data["statistics"].tolist(), data["step_statistics"].tolist()
            for step, totals, values in zip(
                data["steps"].tolist(), data["totals"].tolist(), data["values"], strict=True
            ):
                columns = {name: values[:, place] for place, name in enumerate(layer_names) if name in _PLACE}
                history.append(step, dict(zip(step_names, totals, strict=True)), columns)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataFileError(
                f"{path}: expected the history of a run, got {error}. Was the run cut short?"
            ) from error
        return history

    def _make_room(self) -> None:
        if self._count < len(self._steps):
            return
        per_row = 8 * (max(len(self._layers), 1) * len(LAYER_STATISTICS) + len(STEP_STATISTICS) + 1)
        most = max(self._limit // per_row, _FEWEST_ROWS)
        if self._count < most:
            extra = min(max(self._count, _FIRST_ROWS), most - self._count)
            self._steps = np.concatenate([self._steps, np.zeros(extra, np.int64)])
            self._totals = np.concatenate([self._totals, np.full((extra, len(STEP_STATISTICS)), np.nan)])
            shape = (extra, len(self._layers), len(LAYER_STATISTICS))
            self._values = np.concatenate([self._values, np.full(shape, np.nan)])
            return
        half = self._count // 2
        keep = np.concatenate([np.arange(0, half, 2), np.arange(half, self._count)])
        for table in (self._steps, self._totals, self._values):
            table[: len(keep)] = table[keep]
        self._count = len(keep)


def _stats(name: str, values: list[float]) -> LayerStats:
    number = dict(zip(LAYER_STATISTICS, values, strict=True))
    output = grad = None
    if not math.isnan(number["output_numel"]):
        size = int(number["output_numel"])
        output = Moments(
            rms=number["output_rms"],
            mean=number["output_mean"],
            abs_max=number["output_abs_max"],
            zero_fraction=number["zero_fraction"],
            nonfinite=int(number["output_nonfinite"]),
            numel=size,
        )
        grad = _rms_only(number["output_grad_rms"], number["output_grad_nonfinite"], size)
    return LayerStats(
        name,
        output=output,
        signal=_seen(number["output_signal"]),
        dead_fraction=_seen(number["dead_fraction"]),
        saturated_fraction=_seen(number["saturated_fraction"]),
        output_grad=grad,
        weight=_rms_only(number["weight_rms"], 0.0, 0),
        weight_grad=_rms_only(number["grad_rms"], number["grad_nonfinite"], 0),
        update_ratio=_seen(number["update_ratio"]),
    )


def _seen(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rms_only(rms: float, nonfinite: float, numel: int) -> Moments | None:
    if math.isnan(rms):
        return None
    return Moments(rms, math.nan, rms, math.nan, 0 if math.isnan(nonfinite) else int(nonfinite), numel)
