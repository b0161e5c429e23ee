"""Run a grid: skip what is stored, train the rest wherever the executor likes, store results as they come."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice

from steadygrad.errors import UnsendableError, UsageError, WorkerError
from steadygrad.lab.grid import Grid
from steadygrad.lab.result import Configuration, Result
from steadygrad.lab.store import Store
from steadygrad.lab.unit import train_unit
from steadygrad.training import Executor, Serial

__all__ = ["Progress", "Sink", "run", "stored"]

_log = logging.getLogger(__name__)

MOST_BREAKS = 3  # of the workers one after the other without a result in between

Progress = Callable[[int, int], None]
"""Called with the number of runs that are done, stored ones included, and of all."""

Sink = Callable[[Sequence[Result]], None]
"""Called with results as they come."""


def run(
    grid: Grid,
    store: Store | str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    together: int = 5,
    sink: Sink | None = None,
) -> list[Result]:
    """Run a grid, resuming where the store ends, and return one result a configuration, in the grid's order.

    It can be stopped and run again at any time: what is stored is not trained again, what is not is trained from its
    start. Results are the same whatever the executor and whatever ``together`` is, up to rounding where runs are
    stacked. Random states are left as found.

    Args:
        grid: What to run.
        store: A store or its file; by default results are in memory only.
        executor: Where units are trained; by default in this process.
        progress: Told as units end.
        together: Runs a unit, which is what a worker takes at a time and what is lost with it.
        sink: Given results as they come, those that are stored already first.

    Raises:
        UsageError: If the grid's factory says so: an argument or a data file is wrong.
        StoreError: If results cannot be stored; those that are stay.
        WorkerError: If workers die three times without a result in between.
    """
    if together < 1:
        raise UsageError(f"run: expected together to be at least 1, got {together}.")
    with nullcontext(store) if isinstance(store, Store) else Store(store) as kept:
        sink = sink or (lambda results: None)
        sink(list(stored(grid, kept)))
        _fill(kept, grid, executor or Serial(), progress or (lambda done, total: None), together, sink)
        return list(stored(grid, kept))


def stored(grid: Grid, store: Store) -> Iterator[Result]:
    """Yield the results of a grid that are stored, in the grid's order."""
    for configuration in grid if len(store) else ():
        result = store.get(grid.key(configuration))
        if result is not None:
            yield result


def _fill(store: Store, grid: Grid, executor: Executor, progress: Progress, together: int, sink: Sink) -> None:
    """Train what is not stored; begin again with what is left where workers die."""
    done, breaks = sum(1 for _ in stored(grid, store)), 0
    progress(done, len(grid))
    while True:
        try:
            for results in executor.map(train_unit, grid, _units(store, grid, together)):
                store.add([grid.key(result.configuration) for result in results], results)
                sink(results)
                done, breaks = done + len(results), 0
                progress(done, len(grid))
            return
        except UnsendableError as error:
            _log.warning("Runs are trained in this process: the grid cannot be sent to another one (%s).", error)
            executor = Serial()
        except WorkerError as error:
            breaks += 1
            if breaks == MOST_BREAKS:
                raise
            _log.warning("%s What it had not finished is trained again.", error)


def _units(store: Store, grid: Grid, together: int) -> Iterator[list[Configuration]]:
    left = (configuration for configuration in grid if grid.key(configuration) not in store)
    while unit := list(islice(left, together)):
        yield unit
