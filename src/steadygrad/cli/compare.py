"""``steadygrad compare``: two watched runs side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from steadygrad.cli.options import Traceback, console
from steadygrad.cli.show import Run
from steadygrad.errors import UsageError
from steadygrad.monitor import read_run
from steadygrad.records import History

__all__ = ["compare"]

LAYERS = ("grad_rms", "update_ratio", "output_rms")
MOST = 12


def compare(first: Run, second: Run, traceback: Traceback = False) -> None:
    """Compare two watched runs: alarms, loss and gradient norm at the same steps, and the layers that differ most."""
    runs = [read_run(folder) for folder in (first, second)]
    screen = console()
    for folder, (history, findings, summary) in zip((first, second), runs, strict=True):
        codes = sorted({finding["code"] for finding in findings})
        screen.print(Text(f"{folder}: {len(history)} looks, {summary['ended']}, {' '.join(codes) or 'no alarms'}"))
    one, other = runs[0][0], runs[1][0]
    common = np.intersect1d(one.steps, other.steps)
    if not len(common):
        raise UsageError(
            "compare: expected two runs with looks at the same steps, got none. Watch both with one --every."
        )
    screen.print()
    screen.print(_course(one, other, common))
    screen.print()
    screen.print(_layers(one, other, common, (first, second)))


def _course(one: History, other: History, common: np.ndarray) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("step", "loss", "", "gradient norm", ""):
        table.add_column(heading, justify="right")
    for step in common[np.unique(np.linspace(0, len(common) - 1, 8).astype(int))]:
        rows = [int(np.searchsorted(history.steps, step)) for history in (one, other)]
        numbers = [
            history.column(name, of="step")[row]
            for name in ("loss", "grad_norm")
            for history, row in zip((one, other), rows, strict=True)
        ]
        table.add_row(str(step), *(f"{number:.4g}" for number in numbers))
    return table


def _layers(one: History, other: History, common: np.ndarray, folders: tuple[Path, Path]) -> Table:
    """Return the medians over common steps that differ most, as a ratio."""
    shared = [name for name in one.layers if name in other.layers]
    differences = []
    for statistic in LAYERS:
        medians = [_medians(history, statistic, shared, common) for history in (one, other)]
        for layer, a, b in zip(shared, *medians, strict=True):
            if a > 0 and b > 0:
                differences.append((abs(np.log(b / a)), layer, statistic, a, b))
    table = Table(title="layers that differ most (medians)", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("layer", "statistic", *(folder.name for folder in folders), "ratio"):
        table.add_column(heading)
    for _, layer, statistic, a, b in sorted(differences, reverse=True)[:MOST]:
        table.add_row(Text(layer), statistic.replace("_", " "), f"{a:.3g}", f"{b:.3g}", f"{b / a:.3g}")
    return table


def _medians(history: History, statistic: str, layers: list[str], steps: np.ndarray) -> list[float]:
    column = history.column(statistic)[np.isin(history.steps, steps)]
    places = [history.layers.index(layer) for layer in layers]
    return [float(np.nanmedian(column[:, p])) if not np.isnan(column[:, p]).all() else np.nan for p in places]
