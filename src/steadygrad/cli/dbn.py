"""``steadygrad dbn``: fit a deep belief network, score it, look at its filters and samples, export it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from steadygrad.cli.options import Board, Traceback, check_board, check_report, console, print_board
from steadygrad.errors import DataFileError, UsageError
from steadygrad.records import write_whole
from steadygrad.training.datasets import load

if TYPE_CHECKING:
    from steadygrad.boltzmann import DBN, DBNClassifier

__all__ = ["app"]

NAMED = ("digits", "mnist", "fashion-mnist")

app = typer.Typer(no_args_is_help=True, help="Deep belief networks: fit, sample, score, filters, export.")

Data = Annotated[str, typer.Option(help=f"{', '.join(NAMED)}, or a .npy, .npz (X, y) or .csv file.")]
Model = Annotated[Path, typer.Argument(help="A file that `dbn fit --save` wrote.")]
Picture = Annotated[Path, typer.Option("--out", help="The PNG file to write.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is random.")]
Hidden = Annotated[str, typer.Option(help="Hidden units of each layer, separated by commas.")]


@app.command()
def fit(
    data: Data = "digits",
    hidden: Hidden = "256,256",
    save: Annotated[Path, typer.Option(help="Where to keep the network.")] = Path("dbn.safetensors"),
    label: Annotated[str | None, typer.Option(help="Column of the classes in a .csv file.")] = None,
    pretrain_epochs: Annotated[int, typer.Option(help="Passes over the data a layer.")] = 20,
    epochs: Annotated[int, typer.Option(help="Passes of fine-tuning; 0 leaves the network without classes.")] = 20,
    generative: Annotated[
        bool, typer.Option("--generative", help="Learn labels at the top, to be sampled from, instead of a classifier.")
    ] = False,
    method: Annotated[str, typer.Option(help="cd, pcd or pt.")] = "cd",
    batch_size: Annotated[int | None, typer.Option(help="Rows an update; by default 100, fewer for few rows.")] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Hold a tenth out; a layer ends when its free-energy gap grows.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Where to run, as torch names it.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with course, filters and samples (.html).")] = None,
    tensorboard: Board = None,
    seed: Seed = 0,
    traceback: Traceback = False,
) -> None:
    """Pretrain layer by layer, fine-tune with the classes if there are some, and keep the network.

    After an interruption the same command goes on from the last complete epoch.
    """
    from steadygrad.boltzmann import DBN, RBM, DBNClassifier
    from steadygrad.boltzmann.sources import usual_batch

    if not save.parent.is_dir():
        raise UsageError(f"--save: expected a file in an existing folder, got {str(save)!r}.")
    if report is not None:
        check_report(report, (".html",))
    check_board(tensorboard)
    rows, classes, test = read_rows(data, label)
    sizes = _sizes(hidden)
    batch_size = batch_size or usual_batch(len(rows))
    momentum: Any = {0: 0.5, 5: 0.9} if method == "cd" else 0.0
    shared: Any = {"batch_size": batch_size, "early_stopping": early_stopping, "device": device}
    rbm = RBM(n_epochs=pretrain_epochs, method=method, momentum=momentum, **shared)
    kind = "generative" if generative else "discriminative"
    network: DBN | DBNClassifier
    if classes is None or epochs == 0:
        network, classes = DBN(sizes, rbm=rbm, random_state=seed, verbose=True), None
    else:
        tuning: Any = {"n_epochs": epochs, "batch_size": batch_size, "random_state": seed, "verbose": True}
        network = DBNClassifier(sizes, rbm=rbm, method=kind, **tuning)
    _fit(network, rows, classes, save)
    _show(network, _figures(network, rows, classes, test), save, report, tensorboard)


def _show(network: Any, known: dict[str, str], save: Path, report: Path | None, tensorboard: Path | None) -> None:
    """Print figures and findings of a fitted network, and write its page and event files."""
    from steadygrad.boltzmann.page import network_page
    from steadygrad.boltzmann.portrait import findings_of
    from steadygrad.boltzmann.tensorboard import write_board

    screen = console()
    for name, value in known.items():
        screen.print(f"{name}: {value}", soft_wrap=True)
    for finding in findings_of(network):
        screen.print(f"{finding.code} {finding.layer}: {finding.message}. {finding.advice}", soft_wrap=True)
    screen.print(f"Network written to {save}", soft_wrap=True, markup=False)
    if report is not None:
        write_whole(report, network_page(network, known))
        screen.print(f"Report written to {report}", soft_wrap=True, markup=False)
    if tensorboard is not None:
        write_board(network, tensorboard)
        print_board(tensorboard)


@app.command()
def sample(
    model: Model,
    out: Picture = Path("samples.png"),
    count: Annotated[int, typer.Option(help="How many.")] = 100,
    steps: Annotated[int, typer.Option(help="Gibbs steps of the top.")] = 500,
    label: Annotated[str | None, typer.Option(help="The class to dream of, where labels were learned.")] = None,
    seed: Seed = 0,
    traceback: Traceback = False,
) -> None:
    """Draw what the network believes in, as a picture of tiles."""
    from steadygrad.boltzmann.pictures import mosaic, png

    network = load_network(model)
    if hasattr(network, "classes_"):
        wanted = None if label is None else _class(network.classes_, label)
        rows = network.sample(count, label=wanted, steps=steps, random_state=seed)
    elif label is not None:
        raise UsageError("--label: expected a network with classes, got one without. Fit it with --generative.")
    else:
        rows = network.sample(count, steps=steps, random_state=seed)
    out.write_bytes(png(mosaic(rows)))
    console().print(f"{count} samples written to {out}", soft_wrap=True, markup=False)


@app.command()
def score(
    model: Model,
    data: Data = "digits",
    label: Annotated[str | None, typer.Option(help="Column of the classes in a .csv file.")] = None,
    chains: Annotated[int, typer.Option(help="Chains of annealed importance sampling.")] = 100,
    traceback: Traceback = False,
) -> None:
    """Print the error on held-out data, or the bound on the log-likelihood of a network without classes."""
    network = load_network(model)
    rows, classes, test = read_rows(data, label)
    if test is not None:
        rows, classes = test
    if hasattr(network, "classes_"):
        if classes is None:
            raise UsageError("score: expected data with classes, got none. Name their column with --label.")
        console().print(f"error {_error(network, rows, classes)}")
    else:
        console().print(f"bound on the log-likelihood: {network.bound(rows, chains=chains)}", soft_wrap=True)


@app.command()
def filters(
    model: Model,
    out: Picture = Path("filters.png"),
    count: Annotated[int, typer.Option(help="How many units of the first layer.")] = 100,
    traceback: Traceback = False,
) -> None:
    """Draw the weights of the first layer, each tile at its own scale, zero as middle gray."""
    from steadygrad.boltzmann.pictures import mosaic, png
    from steadygrad.boltzmann.portrait import filters_of

    network = load_network(model)
    weight = filters_of(network)
    out.write_bytes(png(mosaic(weight[:count], zero=0.0)))
    console().print(f"{min(count, len(weight))} filters written to {out}", soft_wrap=True, markup=False)


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")] = Path("network.safetensors"),
    traceback: Traceback = False,
) -> None:
    """Write the weights as those of an ordinary torch.nn.Sequential of Linear and Sigmoid layers."""
    from safetensors.torch import save_file

    sequential = _sequential(load_network(model))
    save_file({name: value.cpu().contiguous() for name, value in sequential.state_dict().items()}, out)
    console().print(str(sequential), markup=False)
    console().print(f"State dict written to {out}", soft_wrap=True, markup=False)


def load_network(path: Path) -> Any:
    """Return the DBN or DBNClassifier in a file.

    Raises:
        DataFileError: If it holds neither.
    """
    from steadygrad.boltzmann import DBN, DBNClassifier

    try:
        return DBNClassifier.load(path)
    except DataFileError as first:
        if "got a DBN of" not in str(first):
            raise
        return DBN.load(path)


def read_rows(
    data: str, label: str | None = None
) -> tuple[np.ndarray, np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]:
    """Return training rows, their classes if any, and the test part of the named data sets.

    Raises:
        DataFileError: If the file cannot be read.
    """
    if data in NAMED:
        found = load(data)
        return found.train[0].numpy(), found.train[1].numpy(), (found.test[0].numpy(), found.test[1].numpy())
    path = Path(data)
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None, None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["X"], arrays.get("y"), None
        if path.suffix == ".csv":
            return *_read_csv(path, label), None
    except (OSError, ValueError, KeyError) as error:
        raise DataFileError(
            f"--data: expected rows of numbers in {path}, got {type(error).__name__}: {error}."
        ) from error
    raise UsageError(
        f"--data: expected {', '.join(NAMED)} or a .npy, .npz or .csv file, got {data!r}. Name one of them."
    )


def _read_csv(path: Path, label: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    names = list(table.dtype.names or ())
    if label is not None and label not in names:
        raise UsageError(f"--label: expected one of the columns {', '.join(names[:20])}, got {label!r}.")
    rows = np.stack([np.atleast_1d(table[name]) for name in names if name != label], 1).astype(np.float64)
    return rows, None if label is None else np.atleast_1d(table[label])


def _sizes(hidden: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in hidden.split(","))
    except ValueError:
        raise UsageError(f"--hidden: expected whole numbers separated by commas, as 500,500, got {hidden!r}.") from None


def _class(classes: np.ndarray, label: str) -> Any:
    for known in classes:
        if str(known) == label:
            return known
    raise UsageError(f"--label: expected one of {', '.join(map(str, classes))}, got {label!r}.")


def _fit(network: DBN | DBNClassifier, rows: Any, classes: Any, save: Path) -> None:
    from steadygrad.boltzmann.checkpoint import fit_and_keep, part_of

    part = part_of(save)
    if part.exists():
        console().print(f"Going on from {part}", soft_wrap=True, markup=False)
    try:
        fit_and_keep(network, rows, classes, save)
    except KeyboardInterrupt:
        if part.exists():
            words = f"What was learned up to the last complete epoch is in {part}. Run the same again to go on."
            console().print(words, soft_wrap=True, markup=False)
        raise


def _figures(network: Any, rows: Any, classes: Any, test: Any) -> dict[str, str]:
    if classes is None:
        return {"bound on the log-likelihood": str(network.bound(rows[:1000]))}
    found = {"training error": _error(network, rows, classes)}
    return found if test is None else found | {"test error": _error(network, *test)}


def _error(classifier: DBNClassifier, rows: np.ndarray, classes: np.ndarray) -> str:
    return f"{100 * (1 - classifier.score(rows, classes)):.2f} % of {len(rows)} rows"


def _sequential(network: DBN | DBNClassifier) -> Any:
    if getattr(network, "method", "") == "generative":
        raise UsageError("export: expected a network without label units. Fit it without --generative.")
    return network.to_sequential()
