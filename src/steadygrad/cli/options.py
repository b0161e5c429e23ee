"""Options and outputs that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import Annotated

import torch
import typer
from rich.console import Console

from steadygrad.errors import UsageError
from steadygrad.training import TrainingSetup

__all__ = ["Device", "Format", "Output", "Target", "Traceback", "console", "on_device", "only_results_on"]


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
