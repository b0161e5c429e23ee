"""``steadygrad show``: what a watched run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from steadygrad.cli.options import Traceback, check_report, console
from steadygrad.cli.run_report import RunReport, write_run_report
from steadygrad.errors import UsageError
from steadygrad.monitor import read_run
from steadygrad.records import History

__all__ = ["Run", "show"]

Run = Annotated[Path, typer.Argument(help="Folder that steadygrad watch wrote.", show_default=False)]
COLUMNS = ("grad_rms", "grad_rms_used", "weight_rms", "update_ratio", "output_rms", "output_grad_rms", "dead_fraction")


def show(
    run: Run,
    step: Annotated[int | None, typer.Option(help="Show the look at this step or the last one before it.")] = None,
    report: RunReport = None,
    traceback: Traceback = False,
) -> None:
    """Show a watched run: alarms, the course of the loss and gradient norm, and one look layer by layer."""
    history, findings, summary = read_run(run)
    screen = console()
    if not len(history):
        raise UsageError(f"{run}: expected a run with at least one look, got none. Did the script make a step?")
    if report is not None:
        check_report(report, (".html",))
        write_run_report(run, report)
    screen.print(Text(f"{run}: {history.steps[-1] + 1} steps, {len(history)} looks, {summary['ended']}"))
    for finding in findings:
        screen.print(Text(f"step {finding['step']}: {finding['code']} {finding['message']}"), soft_wrap=True)
        screen.print(Text(f"  {finding['advice']}"), soft_wrap=True)
    for note in summary.get("unseen", ()):
        screen.print(Text(f"not seen: {note}"), soft_wrap=True)
    screen.print()
    screen.print(_course(history))
    screen.print()
    screen.print(_layers(history, history.nearest(int(history.steps[-1]) if step is None else step)))


def _course(history: History) -> Table:
    """Return eight looks from first to last."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("step", "loss", "gradient norm", "used"):
        table.add_column(heading, justify="right")
    columns = [history.column(name, of="step") for name in ("loss", "grad_norm", "grad_norm_used")]
    for row in np.unique(np.linspace(0, len(history) - 1, 8).astype(int)):
        table.add_row(str(history.steps[row]), *(_short(column[row]) for column in columns))
    return table


def _layers(history: History, step: int) -> Table:
    table = Table(title=f"step {step}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    row = int(np.searchsorted(history.steps, step))
    seen = [name for name in COLUMNS if not np.isnan(history.column(name)[row]).all()]
    table.add_column("layer")
    for name in seen:
        table.add_column(name.replace("_", " "), justify="right")
    for place, layer in enumerate(history.layers):
        table.add_row(Text(layer), *(_short(history.column(name)[row, place]) for name in seen))
    return table


def _short(number: float) -> str:
    return "-" if np.isnan(number) else f"{number:.3g}"
