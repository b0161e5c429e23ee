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
OUTPUT_PLACES = np.array([PLACE[name] for name in COLUMNS])
GRADS = [COLUMNS.index("output_grad_rms")]


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


@dataclass(frozen=True)
class Slots:
    """Where the entries of an optimizer's reads go: rows of layers and numbers of entries, one a parameter."""

    rows: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, parameters: Sequence[Tensor], places: Places) -> Slots:
        """Look up all parameters."""
        return cls(
            np.array([places.row_of[id(parameter)] for parameter in parameters], dtype=np.int64),
            np.array([parameter.numel() for parameter in parameters], dtype=float),
        )


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
        scale = 1.0 if math.isnan(read.scale) else read.scale
        arrived = read.arrived / scale**2
        moved = np.where(np.isnan(read.used), np.nan, read.moved)  # no gradient, no step
        nonfinite = np.where(np.isnan(arrived), np.nan, read.nonfinite)
        self._add(np.stack([arrived, read.used, nonfinite, read.weights, moved]), slots)
        for name, squares in (("grad_norm", arrived), ("grad_norm_used", read.used)):
            if not np.isnan(squares).all():
                self.totals[name] = math.hypot(self.totals.get(name, 0.0), math.sqrt(np.nansum(squares)))
        self.totals["skipped"] = max(self.totals.get("skipped", 0.0), float(read.skipped))
        self.totals.setdefault("lr", read.rate)
        if not math.isnan(read.scale):
            self.totals["loss_scale"] = read.scale

    def add_outputs(self, rows: Sequence[int], table: np.ndarray, scale: float) -> None:
        """Add what one model's layers gave; gradients come times ``scale``."""
        table = table.copy()
        table[:, GRADS] /= 1.0 if math.isnan(scale) else scale
        here = np.ix_(np.asarray(rows, dtype=np.int64), OUTPUT_PLACES)
        self.values[here] = np.where(np.isnan(table), self.values[here], table)

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
        sums = dict(zip(SUMMED, np.where(entries > 0, totals, np.nan), strict=True))
        sizes = dict(zip(SUMMED, np.maximum(entries, 1), strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(sums["weights"] > 0, np.sqrt(sums["moved"] / sums["weights"]), np.nan)
        for name, column in {
            "grad_norm": np.sqrt(sums["arrived"]),
            "grad_rms": np.sqrt(sums["arrived"] / sizes["arrived"]),
            "grad_norm_used": np.sqrt(sums["used"]),
            "grad_rms_used": np.sqrt(sums["used"] / sizes["used"]),
            "grad_nonfinite": sums["nonfinite"],
            "weight_rms": np.sqrt(sums["weights"] / sizes["weights"]),
            "update_ratio": ratio,
        }.items():
            self.values[: len(column), PLACE[name]] = column

    def _add(self, values: np.ndarray, slots: Slots) -> None:
        """Add what is ``SUMMED`` of parameters to the sums of their layers, NaN left out; count their entries."""
        seen, layers, kinds = ~np.isnan(values), len(self.values), len(SUMMED)
        bins = (slots.rows + layers * np.arange(kinds)[:, None])[seen]
        sums = np.stack(
            [
                np.bincount(bins, weights=weights[seen], minlength=kinds * layers).reshape(kinds, layers)
                for weights in (values, np.broadcast_to(slots.sizes, values.shape))
            ]
        )
        sums[:, :, : self._sums.shape[2]] += self._sums
        self._sums = sums
