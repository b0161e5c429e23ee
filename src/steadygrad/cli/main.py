"""The command line: one place that turns errors into sentences and exit codes.

Exit codes: 0 clean, 1 findings at or over ``--fail-on`` (or nothing cured), 2 usage error, 3 the user's set-up failed,
130 interrupted, 70 a fault of steadygrad itself.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from typer.exceptions import TyperException

from steadygrad import __version__
from steadygrad.cli import check, compare, dbn, demo, explain, lab, remedies, replay, show, treat, watch
from steadygrad.errors import SetupError, SteadygradError

__all__ = ["app", "main"]

CLEAN, USAGE, FAILED, FAULT, INTERRUPTED = 0, 2, 3, 70, 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"steadygrad {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep the gradients of deep networks steady: diagnose, prescribe, apply, prove."""


app.command()(demo.demo)
app.command()(check.check)
app.command()(treat.treat)
app.command()(explain.explain)
app.command()(explain.rules)
app.command()(remedies.remedies)
app.command()(watch.watch)
app.command()(show.show)
app.command()(compare.compare)
app.command()(replay.replay)
app.add_typer(dbn.app, name="dbn")
app.add_typer(lab.app, name="lab")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # layer names may hold what an ASCII terminal cannot show
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="steadygrad", standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _say("interrupted")
        return code if isinstance(code, int) else CLEAN
    except TyperException as error:
        _say(error.format_message())
        return USAGE
    except SteadygradError as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        _say(str(error))
        return FAILED if isinstance(error, SetupError) else USAGE
    except Exception as error:
        traceback.print_exc()
        _say(f"steadygrad itself failed with {type(error).__name__}. Please report it with the lines above.")
        return FAULT


def _say(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text("error: ", style="bold red") + Text(sentence))
