"""``steadygrad lab``: run grids of trainings, resume them, look at what they came to."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from steadygrad.cli.loading import load_callable
from steadygrad.cli.options import Board, Device, Traceback, Workers, check_board, check_report, console, print_board
from steadygrad.cli.progress import live_progress
from steadygrad.errors import UsageError
from steadygrad.lab import Grid, Result, Store, export, mlp, mnist_grid, run
from steadygrad.lab.article import OPTIMIZERS
from steadygrad.lab.sheets import grid_page, points_sheet, robustness_sheet
from steadygrad.lab.summary import article_verdict, points, robustness
from steadygrad.lab.tensorboard import EventFiles
from steadygrad.lab.update import kernels
from steadygrad.records import write_whole
from steadygrad.report.text import sheet_table
from steadygrad.training import Executor, Processes, Serial

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Grids of trainings: run, resume, show, export.")


class Where(StrEnum):
    """Where runs are trained."""

    HERE = "here"
    PROCESSES = "processes"
    RAY = "ray"


StorePath = Annotated[Path, typer.Option("--store", help="File of the results; what it holds is not trained again.")]
StoreFile = Annotated[Path, typer.Argument(help="File of results that `lab` wrote.", show_default=False)]
ExecutorName = Annotated[Where, typer.Option("--executor", help="Where to train.")]
RayAddress = Annotated[
    str | None, typer.Option(help="auto or ray://HOST:PORT; by default a cluster of this machine alone.")
]
Report = Annotated[Path | None, typer.Option(help="Write a page with tables and curves here (.html).")]
By = Annotated[str, typer.Option(help="Axis whose values are compared.")]


@app.command("mnist-grid")
def run_mnist_grid(
    data: Annotated[str, typer.Option(help="mnist, fashion-mnist or digits.")] = "mnist",
    train: Annotated[int, typer.Option(help="Training images: 5000 or 50000 in the article's two readings.")] = 5000,
    widths: Annotated[str, typer.Option(help="Hidden units of each layer, joined by -.")] = "128-64",
    optimizers: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(OPTIMIZERS),
    lrs: Annotated[str, typer.Option(help="Learning rates, separated by commas.")] = "0.001,0.01,0.1",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "10,100,1000",
    decays: Annotated[str, typer.Option(help="Weight decays, separated by commas.")] = "0.001,0.01,0.1",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 50,
    validations: Annotated[int, typer.Option(min=1, help="Looks at the validation images an epoch.")] = 10,
    seeds: Annotated[str, typer.Option(help="One grid each, separated by commas.")] = "0",
    store: StorePath = Path("mnist-grid.sqlite"),
    executor: ExecutorName = Where.PROCESSES,
    workers: Workers = None,
    ray_address: RayAddress = None,
    device: Device = None,
    report: Report = None,
    tensorboard: Board = None,
    traceback: Traceback = False,
) -> None:
    """Run the seed article's grid: 5 optimizers x 3 learning rates x 3 batch sizes x 3 weight decays."""
    grid = mnist_grid(
        data,
        train,
        widths,
        _values("--optimizers", optimizers, str),
        _values("--lrs", lrs, float),
        _values("--batches", batches, int),
        _values("--decays", decays, float),
        epochs,
        validations,
        _values("--seeds", seeds, int),
        device,
    )
    for optimizer in grid.axes["optimizer"]:  # before workers start: their first sentence would be the same
        mlp(data, train, widths, str(optimizer), batch=max(map(int, _values("--batches", batches, int))))
    # Compiled runs gain nothing from company, and a single one is little to lose.
    _run(
        grid, store, _executor(executor, workers, ray_address), report, tensorboard, "optimizer", 1 if kernels() else 5
    )


@app.command("run")
def run_file(
    file: Annotated[Path, typer.Argument(metavar="GRID.toml", help="What to run.", show_default=False)],
    store: Annotated[Path | None, typer.Option(help="File of the results; by default GRID.sqlite.")] = None,
    executor: ExecutorName = Where.PROCESSES,
    workers: Workers = None,
    ray_address: RayAddress = None,
    report: Report = None,
    tensorboard: Board = None,
    by: By = "optimizer",
    traceback: Traceback = False,
) -> None:
    """Run a grid from a file: `factory = "FILE.py:callable"`, `looks = 10` and a table `[axes]` with a list an axis."""
    _run(
        _read(file),
        store or file.with_suffix(".sqlite"),
        _executor(executor, workers, ray_address),
        report,
        tensorboard,
        by,
    )


@app.command()
def show(
    store: StoreFile,
    report: Report = None,
    tensorboard: Board = None,
    by: By = "optimizer",
    traceback: Traceback = False,
) -> None:
    """Show what is stored: the best runs, and how robust each value of an axis is."""
    check_board(tensorboard)
    results = _stored(store)
    if tensorboard is not None:
        EventFiles(tensorboard)(results)
    _print(results, report, tensorboard, by)


@app.command("export")
def export_results(
    store: StoreFile,
    out: Annotated[Path, typer.Argument(help="File that ends in .csv, .jsonl or .parquet.", show_default=False)],
    traceback: Traceback = False,
) -> None:
    """Write all stored results into one file, a row a run."""
    results = _stored(store)
    export(results, out)
    console().print(f"{len(results):,} runs written to {out}", soft_wrap=True, markup=False)


def _stored(path: Path) -> list[Result]:
    if not path.is_file():
        raise UsageError(f"{path}: expected a file of results, found none. `steadygrad lab mnist-grid` makes one.")
    with Store(path) as store:
        results = list(store)
    if not results:
        raise UsageError(f"{path}: expected at least one result, got none. Run the grid first.")
    return results


def _executor(where: Where, workers: int | None, address: str | None) -> Executor:
    if address is not None and where is not Where.RAY:
        raise UsageError(f"--ray-address: expected --executor ray beside it, got {where}.")
    if where is Where.RAY:
        from steadygrad.training.ray_cluster import RayCluster

        return RayCluster(address, workers)
    return Serial() if where is Where.HERE else Processes(workers)


def _run(
    grid: Grid, path: Path, executor: Executor, report: Path | None, board: Path | None, by: str, together: int = 5
) -> None:
    if report is not None:
        check_report(report, (".html",))
    check_board(board)
    screen = console()
    with Store(path) as store:
        try:
            with live_progress() as progress:
                sink = None if board is None else EventFiles(board)
                tell = partial(progress, "training")
                results = run(grid, store, executor, tell, together, sink)
        except KeyboardInterrupt:
            screen.print(f"{len(store):,} runs are stored in {path}. Run the same again to resume.", soft_wrap=True)
            raise
    _print(results, report, board, by)
    screen.print(f"Results are stored in {path}", soft_wrap=True, markup=False)


def _print(results: list[Result], report: Path | None, board: Path | None, by: str) -> None:
    screen, found = console(), points(results)
    screen.print(sheet_table(points_sheet(found)))
    if any(by in point.configuration for point in found):
        screen.print(Text(f"\nRobustness by {by}", style="bold underline"))
        screen.print(sheet_table(robustness_sheet(robustness(found, by), by)))
    verdict = article_verdict(found)
    if verdict:
        screen.print(Text(f"\n{verdict}"), soft_wrap=True)
    if report is not None:
        write_whole(report, grid_page(found, by))
        screen.print(f"\nReport written to {report}", soft_wrap=True, markup=False)
    if board is not None:
        print_board(board)


def _values(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        wanted = {int: "whole numbers", float: "numbers"}.get(kind, "words")  # type: ignore[call-overload]
        raise UsageError(f"{option}: expected {wanted} separated by commas, got {text!r}.") from None


def _read(file: Path) -> Grid:
    """Read a grid's file; the factory's own file is named from where the grid's lies."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: expected a grid in TOML, found no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: expected a grid in TOML, got: {error}.") from error
    unknown = set(content) - {"factory", "looks", "axes"}
    if unknown or not isinstance(content.get("factory"), str) or not isinstance(content.get("axes", {}), dict):
        raise UsageError(
            f'{file}: expected factory = "FILE.py:callable", looks = 10 and a table [axes], '
            f"got {', '.join(content) or 'nothing'}."
        )
    factory = content["factory"]
    if ".py:" in factory:
        factory = str(file.parent / factory)
    axes = {axis: value if isinstance(value, list) else [value] for axis, value in content.get("axes", {}).items()}
    return Grid(mlp if factory == "mlp" else load_callable(factory), axes, content.get("looks", 10))
