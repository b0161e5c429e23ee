"""``steadygrad watch``: run an unmodified training script with a monitor attached."""

from __future__ import annotations

import runpy
import sys
import time
import traceback as tracebacks
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steadygrad.cli.options import Board, Traceback, check_board, check_report
from steadygrad.cli.run_report import RunReport, write_run_report
from steadygrad.errors import UsageError
from steadygrad.monitor import Monitor, RunFolder, TensorBoard, find_trainings
from steadygrad.monitor.alarms import Sink
from steadygrad.records import Finding

__all__ = ["watch"]

INTERRUPTED = 130
WORST, REFRESH, LINE_EVERY = 5, 0.5, 10.0  # layers; seconds between frames; seconds between lines


def watch(
    script: Annotated[Path, typer.Argument(help="Your training script; it is executed as it is.", show_default=False)],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments, after --.", show_default=False)] = None,
    every: Annotated[
        int | None, typer.Option(help="Look at every so many optimizer steps; by default every 10, later every 100.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/SCRIPT-TIME.")] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Write the parameters every so many steps, not at alarms and the end alone.", min=1),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show alarms only.")] = False,
    report: RunReport = None,
    tensorboard: Board = None,
    traceback: Traceback = False,
) -> None:
    """Run YOUR training script, unmodified, with the monitor attached; its output and exit code are kept."""
    if not script.is_file():
        raise UsageError(f"{script}: expected a Python script, found none.")
    if report is not None:
        check_report(report, (".html",))
    check_board(tensorboard)
    folder = out or Path("runs") / f"{script.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    run, screen = RunFolder(folder, checkpoint_every), Console(stderr=True, highlight=False)
    panel = Panel(screen, quiet)
    boards = [] if tensorboard is None else [TensorBoard(tensorboard)]
    sinks: list[Sink] = [run, panel.look, *boards]
    monitor = Monitor([], every=every, on_alarm=panel.alarm, sinks=sinks, capsules=folder / "capsules")
    run.begin(monitor)
    with panel, monitor, find_trainings(monitor):
        ended, code = _run(script, arguments or [])
    run.finish(monitor, ended)
    for board in boards:
        board.close()
    if report is not None and len(monitor.history):
        write_run_report(folder, report)
    _say_end(screen, monitor, folder)
    raise typer.Exit(code)


def _run(script: Path, arguments: list[str]) -> tuple[str, int]:
    """Run a script as ``python script`` would; return how it ended and its exit code."""
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return "exited", stop.code or 0
        print(stop.code, file=sys.stderr)
        return "exited", 1
    except KeyboardInterrupt:
        return "interrupted", INTERRUPTED
    except BaseException as error:
        tracebacks.print_exception(type(error), error, _own_frames(error.__traceback__, str(script)))
        return f"failed with {type(error).__name__}", 1
    return "finished", 0


def _own_frames(frames: TracebackType | None, script: str) -> TracebackType | None:
    """Leave out what lies between the command and the script."""
    found = frames
    while found is not None and found.tb_frame.f_code.co_filename != script:
        found = found.tb_next
    return found or frames


class Panel:
    """Show the training on a terminal as it goes on; line by line elsewhere."""

    def __init__(self, screen: Console, quiet: bool) -> None:
        self._screen, self._quiet, self._shown = screen, quiet, 0.0
        self._alarms: list[Finding] = []
        self._live = Live(console=screen, auto_refresh=False) if screen.is_terminal and not quiet else None

    def __enter__(self) -> Panel:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def alarm(self, finding: Finding) -> None:
        """Show an alarm."""
        self._alarms.append(finding)
        where = f" at {finding.layer}" if finding.layer else ""
        sentence = f"{finding.code}{where}: {finding.message}. {finding.advice}"
        self._screen.print(Text(f"steadygrad {finding.severity.label} {sentence}"), soft_wrap=True)

    def look(self, event: Mapping[str, Any]) -> None:
        """Show a look, not more often than one can read."""
        now = time.monotonic()
        due = now - self._shown >= (REFRESH if self._live is not None else LINE_EVERY)
        if event["event"] != "look" or self._quiet or not due:
            return
        self._shown = now
        if self._live is not None:
            self._live.update(self._table(event), refresh=True)
        else:
            self._screen.print(Text(f"steadygrad {_headline(event)}"), soft_wrap=True)

    def _table(self, event: Mapping[str, Any]) -> Table:
        table = Table(title=_headline(event), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("largest updates", "grad rms", "update/weight", "output rms"):
            table.add_column(heading)
        layers, names = event["layers"], event["names"]
        ratios = layers.get("update_ratio", [])
        worst = sorted((k for k, ratio in enumerate(ratios) if ratio is not None), key=lambda k: -ratios[k])[:WORST]
        for place in worst:
            numbers = [
                layers.get(name, [None] * len(names))[place] for name in ("grad_rms", "update_ratio", "output_rms")
            ]
            table.add_row(Text(names[place]), *(_short(number) for number in numbers))
        return table


def _headline(event: Mapping[str, Any]) -> str:
    parts = [f"step {event['step']}"]
    names = {"loss": "loss", "grad_norm": "gradient norm", "grad_norm_used": "used", "loss_scale": "loss scale"}
    parts += [f"{shown} {_short(event[name])}" for name, shown in names.items() if _seen(event.get(name))]
    return "  ".join(parts)


def _seen(number: float | None) -> bool:
    return number is not None and number == number


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}"


def _say_end(screen: Console, monitor: Monitor, folder: Path) -> None:
    say: Callable[[str], None] = lambda sentence: screen.print(Text(f"steadygrad {sentence}"), soft_wrap=True)  # noqa: E731
    for note in monitor.unseen:
        say(f"did not see {note}")
    if not len(monitor.history):
        say("saw no optimizer step of torch.optim")
    say(f"{monitor.steps} steps, {len(monitor.findings)} alarms; steadygrad show {folder}")
