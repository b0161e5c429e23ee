"""Put together what taps read in one step: sums of parameters become numbers of layers, and layers a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from steadygrad.monitor.activation_tap import COLUMNS
from steadygrad.monitor.step_read import StepRead
from steadygrad.records.history import LAYER_STATISTICS

__all__ = ["Look", "Places", "Slots"]

SUMMED = ("arrived", "used", "nonfinite", "weights", "moved")
PLACE = {name: place for place, name in enumerate(LAYER_STATISTICS)}
FIRST_OUTPUT = len(LAYER_STATISTICS) - len(COLUMNS)
PARAMETERS, OUTPUTS = slice(FIRST_OUTPUT), slice(FIRST_OUTPUT, None)
assert LAYER_STATISTICS[FIRST_OUTPUT:] == COLUMNS
GRADS = COLUMNS.index("output_grad_rms")


class Places:
    """Which layer each parameter belongs to.

    Attributes:
        names: Names of all layers, in the order of the rows.
        row_of: Row of a parameter, by its ``id``.
        with_matrix: Rows of layers that have a parameter with two or more dimensions.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.row_of: dict[int, int] = {}
        self.with_matrix: set[int] = set()
        self._rows: dict[str, int] = {}

    def add_layer(self, name: str) -> int:
        """Return the row of a layer, a new one if need be."""
        row = self._rows.setdefault(name, len(self.names))
        if row == len(self.names):
            self.names.append(name)
        return row

    def add_parameter(self, parameter: Tensor, layer: str) -> None:
        """Place a parameter in a layer, unless it has its place."""
        row = self.row_of.setdefault(id(parameter), self.add_layer(layer))
        if parameter.dim() > 1:
            self.with_matrix.add(row)

    def weighs(self, parameter: Tensor) -> bool:
        """Whether a parameter counts in the weights and steps of its layer: its matrices, or all where it has none."""
        return parameter.dim() > 1 or self.row_of.get(id(parameter)) not in self.with_matrix


class Slots:
    """Where the entries of an optimizer's reads go.

    Args:
        parameters: One an entry.
        places: Knows all of them.

    Attributes:
        layers: Rows of layers there are.
        bins: Place of an entry among the rows, for each of ``SUMMED``; shape ``(SUMMED, parameters)``.
        sizes: Numbers of entries of the parameters.
    """

    def __init__(self, parameters: Sequence[Tensor], places: Places) -> None:
        self.layers = len(places.names)
        rows = np.array([places.row_of[id(parameter)] for parameter in parameters], dtype=np.int64)
        self.bins = rows + self.layers * np.arange(len(SUMMED))[:, None]
        self.sizes = np.array([parameter.numel() for parameter in parameters], dtype=float)


@dataclass
class Look:
    """One row in the making: the numbers of one step, until all optimizers have made it.

    Attributes:
        step: Optimizer steps made before.
        values: Shape ``(layers, statistics)``.
        totals: Numbers of the whole network.
        reported: Which taps have told theirs.
    """

    step: int
    values: np.ndarray
    totals: dict[str, float] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)
    _sums: np.ndarray = field(default_factory=lambda: np.zeros((2, len(SUMMED), 0)))

    @classmethod
    def empty(cls, step: int, layers: int) -> Look:
        """Return a row with nothing seen."""
        return cls(step, np.full((layers, len(LAYER_STATISTICS)), np.nan))

    def add_step(self, read: StepRead, slots: Slots) -> None:
        """Add what one optimizer's step gave."""
        scaled = not math.isnan(read.scale)
        arrived = read.arrived / read.scale**2 if scaled else read.arrived
        values = np.array([arrived, read.used, read.nonfinite, read.weights, read.moved])
        values[2, np.isnan(arrived)] = values[4, np.isnan(read.used)] = np.nan  # no gradient, no step
        sums, entries = self._add(values, slots)[:, :2].sum(2)
        for name, squares, seen in zip(("grad_norm", "grad_norm_used"), sums, entries, strict=True):
            if seen:
                self.totals[name] = math.hypot(self.totals.get(name, 0.0), math.sqrt(squares))
        self.totals["skipped"] = max(self.totals.get("skipped", 0.0), float(read.skipped))
        self.totals.setdefault("lr", read.rate)
        if scaled:
            self.totals["loss_scale"] = read.scale

    def add_totals(
        self, scale: float, loss: float, backwards: float, undivided: float, stale: float, early: float, outside: float
    ) -> None:
        """Add what is known of the step as a whole: counts of several optimizers add up."""
        if not math.isnan(loss) or "loss" not in self.totals:
            self.totals["loss"] = loss if math.isnan(scale) else loss / scale
        for name, count in ("backwards", backwards), ("undivided", undivided), ("stale", stale):
            self.totals[name] = self.totals.get(name, 0.0) + count
        self.totals |= {"early_schedules": early, "weight_change_outside": outside}

    def add_outputs(self, rows: np.ndarray, table: np.ndarray, scale: float) -> None:
        """Add what one model's layers gave; gradients come times ``scale``."""
        if not math.isnan(scale):
            table = table.copy()
            table[:, GRADS] /= scale
        self.values[rows, OUTPUTS] = np.where(np.isnan(table), self.values[rows, OUTPUTS], table)

    def grow(self, layers: int) -> None:
        """Make room for layers that came since."""
        more = layers - len(self.values)
        if more > 0:
            self.values = np.concatenate([self.values, np.full((more, self.values.shape[1]), np.nan)])

    def event(self, names: Sequence[str]) -> Mapping[str, object]:
        """Return the row as plain data for sinks."""
        return {
            "event": "look",
            "step": self.step,
            **self.totals,
            "layers": {
                statistic: [None if math.isnan(v) else v for v in self.values[:, place].tolist()]
                for statistic, place in PLACE.items()
                if not np.isnan(self.values[:, place]).all()
            },
            "names": list(names),
        }

    def finish(self) -> None:
        """Turn the sums over parameters into numbers of layers."""
        totals, entries = self._sums
        sums = np.where(entries > 0, totals, np.nan)
        norms, rms = np.sqrt(sums), np.sqrt(sums / np.maximum(entries, 1))
        arrived, used, nonfinite, weights, moved = range(len(SUMMED))
        old = norms[weights]
        ratio = np.divide(norms[moved], old, out=np.full_like(old, np.nan), where=old > 0)
        layers = len(old)
        self.values[:layers, PARAMETERS] = np.array(
            [norms[arrived], rms[arrived], norms[used], rms[used], sums[nonfinite], rms[weights], ratio]
        ).T

    def _add(self, values: np.ndarray, slots: Slots) -> np.ndarray:
        """Add what is ``SUMMED`` of parameters to the sums of their layers, NaN left out; count their entries.

        Returns:
            What was added: sums and counts, shape ``(2, SUMMED, layers)``.
        """
        seen, bins, shape = ~np.isnan(values), slots.bins.ravel(), (len(SUMMED), slots.layers)
        sums = np.array(
            [
                np.bincount(bins, weights=weights.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
                for weights in (np.where(seen, values, 0.0), seen * slots.sizes)
            ]
        )
        before, self._sums = self._sums, sums.copy()
        self._sums[:, :, : before.shape[2]] += before
        return sums
