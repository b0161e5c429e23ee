"""``steadygrad replay``: a broken step again, from its capsule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from steadygrad.cli.loading import load_setup
from steadygrad.cli.options import Target, Traceback, console
from steadygrad.monitor.capsule import replay as make_again

__all__ = ["replay"]


def replay(
    capsule: Annotated[Path, typer.Argument(help="Folder that a monitor wrote.", show_default=False)],
    target: Target,
    traceback: Traceback = False,
) -> None:
    """Make a broken step again and name the module that made the first NaN; the exit code is 1 if it breaks again."""
    findings, facts = make_again(capsule, load_setup(target).model)
    screen = console()
    screen.print(Text(f"{capsule}: step {facts['step']}, torch {facts['torch']}"))
    for finding in facts["findings"]:
        screen.print(Text(f"then: {finding['code']} {finding['message']}"), soft_wrap=True)
    for found in findings:
        screen.print(Text(f"now:  {found.code} {found.message}. {found.advice}"), soft_wrap=True)
    if findings:
        raise typer.Exit(1)
    screen.print("now:  everything is finite")
