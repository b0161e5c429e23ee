"""Independent trainings on a Ray cluster; needs ray, which only this file imports."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from itertools import islice
from typing import Any, TypeVar

import torch

from steadygrad.errors import MissingDependencyError, UnsendableError, UsageError, WorkerError

__all__ = ["RayCluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 3  # of an item whose worker or node dies


class RayCluster:
    """Run items as Ray tasks, one torch thread each; what a dead worker or node had in hand is done again elsewhere.

    Every node needs the same Python and steadygrad, and the data where the tasks look for them.

    Args:
        address: ``"auto"`` for the cluster that this machine belongs to, ``"ray://HOST:10001"`` for another one; by
            default a cluster of this machine alone, which ends with the program.
        workers: Processors of that own cluster; by default all of this machine. An existing one has its own.

    Raises:
        MissingDependencyError: If ray is not installed.
        UsageError: If ``workers`` is below 1 or goes with an address, or no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and (workers < 1 or address is not None):
            raise UsageError(
                f"RayCluster: expected workers of at least 1 and no address beside them, got {workers} and {address}. "
                "A cluster that runs already has its own."
            )
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError(
                'RayCluster: expected ray, which is not installed. Run: pip install "steadygrad[ray]"'
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            try:
                ray.init(address or "local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(f"RayCluster: expected a cluster at {address or 'this machine'}: {error}") from error
        self._most = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(shared, item)`` for each item, in order.

        Raises:
            UnsendableError: If ``shared`` cannot be sent to another process, or not be rebuilt there.
            WorkerError: If an item's worker dies again and again.
        """
        ray, deaths = self._ray, self._ray.exceptions
        stored = ray.put((sys.path, torch.get_default_dtype(), _dumps(shared)))
        task = ray.remote(max_retries=RETRIES, num_cpus=1)(_run)
        remaining, waiting = iter(items), deque[Any]()
        try:
            while True:
                for item in islice(remaining, self._most - len(waiting)):
                    waiting.append(task.remote(stored.hex(), stored, _dumps((function, item))))
                if not waiting:
                    return
                yield ray.get(waiting[0])
                waiting.popleft()
        except deaths.RayTaskError as error:
            raise error.cause from None
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            raise WorkerError(f"RayCluster: an item's worker died {RETRIES + 1} times. Use fewer workers.") from error
        finally:
            for each in waiting:  # nobody wants their results any more
                ray.cancel(each, force=True)


def _dumps(value: Any) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # pickling runs the code of whatever is pickled
        raise UnsendableError(f"{type(error).__name__}: {error}") from error


_shared: dict[str, Any] = {}  # in a worker: the last one it was sent, by name


def _run(name: str, packed: tuple[list[str], torch.dtype, bytes], task: bytes) -> Any:
    """Run one task in a worker."""
    import cloudpickle

    torch.set_num_threads(1)
    with redirect_stdout(sys.stderr):
        if name not in _shared:
            folders, dtype, shared = packed
            sys.path.extend(folder for folder in folders if folder not in sys.path)
            torch.set_default_dtype(dtype)
            _shared.clear()
            try:
                _shared[name] = cloudpickle.loads(shared)
            except Exception as error:  # a module that cannot be imported here, among others
                raise UnsendableError(f"{type(error).__name__}: {error}") from None
        function, item = cloudpickle.loads(task)
        return function(_shared[name], item)
