"""Options and outputs that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from steadygrad.errors import UsageError
from steadygrad.report.tensorboard import writer_class
from steadygrad.training import TrainingSetup

__all__ = [
    "Board",
    "Device",
    "Format",
    "Output",
    "Target",
    "Traceback",
    "Workers",
    "check_board",
    "check_report",
    "console",
    "on_device",
    "only_results_on",
    "print_board",
]


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:CALLABLE",
        help="FILE.py:callable or package.module:callable; it is executed. The callable returns a TrainingSetup or a "
        "tuple (model, batch, loss).",
        show_default=False,
    ),
]
Output = Annotated[Format, typer.Option("--format", help="How to print the result.")]
Device = Annotated[str | None, typer.Option(help="Where to run, as torch names it: cpu, cuda, cuda:1, mps.")]
Board = Annotated[Path | None, typer.Option("--tensorboard", help="Write event files into this new folder.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that train; by default one a core, at most 16.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the whole traceback of an error.")]


def console() -> Console:
    """Return the console for results; rich drops color for pipes and under NO_COLOR."""
    return Console(highlight=False)


@contextmanager
def only_results_on(output: Format) -> Iterator[None]:
    """Send what the user's code prints to standard error where standard output is to hold nothing but JSON."""
    with redirect_stdout(sys.stderr if output is Format.JSON else sys.stdout):
        yield


def on_device(setup: TrainingSetup, device: str | None) -> TrainingSetup:
    """Move a set-up that was just made to a device.

    Raises:
        UsageError: If the device does not exist here.
    """
    if device is None:
        return setup
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no such device"])[0]
        raise UsageError(f"--device: expected a device of this machine, got {device!r}: {reason}") from error
    return setup.replace(model=setup.model.to(device), device=device)


def check_board(folder: Path | None) -> None:
    """Check before the work that it can be shown in TensorBoard.

    Raises:
        UsageError: If something lies there already, whose curves would mix with the new ones.
        MissingDependencyError: If TensorBoard is not installed.
    """
    if folder is None:
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--tensorboard: expected a new or empty folder, got {str(folder)!r}. Name another one.")
    writer_class()


def print_board(folder: Path) -> None:
    """Say how to look at what was written."""
    console().print(f"To look at it: tensorboard --logdir {folder}", soft_wrap=True, markup=False)


def check_report(report: Path, endings: tuple[str, ...]) -> None:
    """Check before the work that a report can be written.

    Raises:
        UsageError: If its ending is another one, or its folder does not exist or cannot be written to.
    """
    if report.suffix not in endings or report.is_dir():
        raise UsageError(f"--report: expected a file that ends in {' or '.join(endings)}, got {str(report)!r}.")
    if not report.parent.is_dir() or not os.access(report.parent, os.W_OK):
        folder = str(report.parent)
        raise UsageError(f"--report: expected a folder that can be written to, got {folder!r}. Make it first.")
