"""Where independent trainings run: here, one after the other, or in processes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import redirect_stdout
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

import torch

from steadygrad.errors import UnsendableError, UsageError, WorkerError

__all__ = ["Executor", "Processes", "Serial", "register_by_value"]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 16  # by default: a treatment seldom has more trainings to run at once
IDLE_SECONDS = 60  # after which a worker that has nothing to do ends


class Executor(Protocol):
    """Run a function over items that share one large object; results come in the order of the items."""

    def map(self, function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(shared, item)`` for each item, in order; what is left is given up when the caller stops."""
        ...


class Serial:
    """Run everything in this process."""

    def map(self, function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(shared, item)`` for each item, in order."""
        for item in items:
            yield function(shared, item)


class Processes:
    """Run items in worker processes, one torch thread each.

    The shared object is written once to a private temporary file and read once by each worker. Scripts need no
    ``if __name__ == "__main__"`` guard. What a worker prints goes to standard error.

    Args:
        workers: Number of processes; by default one a core, at most 16.

    Raises:
        UsageError: If ``workers`` is below 1.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"Processes: expected workers to be at least 1, got {workers}.")
        self.workers = workers or min(_cores(), MOST_WORKERS)
        self._pool: Any = None

    def map(self, function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(shared, item)`` for each item, in order.

        Raises:
            UnsendableError: If ``shared`` cannot be sent to another process, or not be rebuilt there.
            WorkerError: If a worker dies.
        """
        from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor  # 0.1 s that a diagnosis needs not

        self._pool = self._pool or ProcessPoolExecutor(self.workers, timeout=IDLE_SECONDS)
        with tempfile.TemporaryDirectory(prefix="steadygrad-") as folder:
            path = str(Path(folder) / "shared.pickle")
            _write(path, (sys.path, torch.get_default_dtype()), shared)
            ended = False
            try:
                yield from self._results(path, function, iter(items))
                ended = True
            except BrokenProcessPool as error:
                raise WorkerError(
                    "Processes: a worker process died, most likely killed for want of memory. "
                    "Use fewer workers, a smaller batch, or train in this process."
                ) from error
            finally:
                if not ended:  # kill what still runs, so that nobody waits for a result that nobody wants
                    self._pool.shutdown(kill_workers=True)
                    self._pool = None

    def _results(self, path: str, function: Callable[[Any, Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        # No more than this is handed out at a time: loky chokes on a long queue when it has to kill its workers.
        most = 2 * self.workers
        futures: deque[Future[Result]] = deque()
        while True:
            if futures and futures[0].done():
                yield futures.popleft().result()
                continue
            running = [future for future in futures if not future.done()]
            for item in islice(items, most - len(running)):
                futures.append(self._pool.submit(_run, path, _dumps((function, item))))
            if not futures:
                return
            wait([future for future in futures if not future.done()], return_when=FIRST_COMPLETED)


def register_by_value(module: ModuleType) -> None:
    """Let what a module defines travel whole to other processes, which may not be able to import it."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dumps(value: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(value)


def _write(path: str, *values: Any) -> None:
    import cloudpickle

    try:
        with open(path, "wb") as file:
            for value in values:
                cloudpickle.dump(value, file)
    except OSError:  # a full disk
        raise
    except Exception as error:  # pickling runs the code of whatever is pickled
        raise _unsendable(error) from error


def _unsendable(error: Exception) -> UnsendableError:
    reason = str(error).strip().splitlines()
    return UnsendableError(f"{type(error).__name__}: {reason[0] if reason else 'no message'}")


def _run(path: str, task: bytes) -> Any:
    """Run one task in a worker."""
    import cloudpickle

    torch.set_num_threads(1)
    with redirect_stdout(sys.stderr):
        shared = _read(path)
        function, item = cloudpickle.loads(task)
        return function(shared, item)


@lru_cache(maxsize=1)
def _read(path: str) -> Any:
    import cloudpickle

    with open(path, "rb") as file:
        folders, dtype = cloudpickle.load(file)
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        torch.set_default_dtype(dtype)
        try:
            return cloudpickle.load(file)
        except Exception as error:  # a module that cannot be imported here, among others
            raise _unsendable(error) from None
