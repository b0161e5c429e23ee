"""Rows of data in batches: arrays in memory or on disk, sparse matrices, tensors, and streams larger than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from steadygrad.errors import UsageError

__all__ = ["ArraySource", "Moments", "Source", "StreamSource", "is_stream", "moments_of", "usual_batch"]

_BATCH, _LEAST_BATCH, _UPDATES = 100, 10, 100
_BLOCK = 512  # rows at a time where order does not matter; a block of images stays in the cache


class Source(Protocol):
    """Rows that can be read again and again."""

    @property
    def features(self) -> int:
        """Width of a row."""
        ...

    def batches(self, size: int, seed: int | None = None) -> Iterator[Tensor]:
        """Yield all rows, at most ``size`` at a time, as float32; shuffled by ``seed`` if given and possible."""
        ...


@dataclass
class ArraySource:
    """Rows of an array, a memory-mapped one too, or of a sparse matrix.

    Attributes:
        array: Shape ``(rows, features)``; it is never copied as a whole.
        rows: Numbers of the rows to use, in order; None for all.
    """

    array: Any
    rows: np.ndarray | None = None

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.array.shape[1]

    def __len__(self) -> int:
        return self.array.shape[0] if self.rows is None else len(self.rows)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Tensor]:
        """Yield the rows in batches."""
        for _, batch in self.numbered(size, seed):
            yield batch

    def numbered(self, size: int, seed: int | None = None) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield batches with the numbers of their rows."""
        count = len(self)
        if seed is None and self.rows is None:
            for start in range(0, count, size):
                stop = min(start + size, count)
                yield np.arange(start, stop), _tensor(self.array[start:stop])
            return
        order = np.arange(count)
        if seed is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
        index = order if self.rows is None else self.rows[order]
        for start in range(0, count, size):
            numbers = np.sort(index[start : start + size])  # rows on disk are read forwards
            yield numbers, _picked(self.array, numbers)

    def split(self, share: float, seed: int) -> tuple[ArraySource, ArraySource]:
        """Return the larger part and a part of about ``share``, at least one row each."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).numpy()
        held = min(max(1, round(share * len(self))), len(self) - 1)
        return ArraySource(self.array, np.sort(order[held:])), ArraySource(self.array, np.sort(order[:held]))


@dataclass
class StreamSource:
    """Batches of any re-iterable, as a DataLoader: arrays, tensors, or tuples that begin with one.

    Attributes:
        stream: What is iterated over once an epoch.
        features: Width of a row.
    """

    stream: Iterable[Any]
    features: int

    @classmethod
    def of(cls, stream: Iterable[Any]) -> StreamSource:
        """Look at the first batch and return the source.

        Raises:
            UsageError: If the stream is empty or can be read only once.
        """
        if iter(stream) is stream:
            raise UsageError(
                f"data: expected batches that can be read again and again, got a {type(stream).__name__}, which can be "
                "read once. Pass a DataLoader, a list of batches, or an object with __iter__."
            )
        first = next(iter(stream), None)
        if first is None:
            raise UsageError("data: expected at least one batch, got nothing. Pass data of one row or more.")
        return cls(stream, _rows_of(first).shape[1])

    def batches(self, size: int, seed: int | None = None) -> Iterator[Tensor]:
        """Yield the batches in their own order, those over ``size`` in pieces."""
        empty = True
        for item in self.stream:
            batch = _rows_of(item)
            if batch.shape[1] != self.features:
                raise UsageError(
                    f"data: expected batches of {self.features} features, got one of {batch.shape[1]}. "
                    "All batches need the same width."
                )
            empty = empty and not len(batch)
            yield from batch.split(size)
        if empty:
            raise UsageError(
                "data: expected at least one row, got none on this pass. Pass an object that starts again each time."
            )

    def labeled(self) -> Iterator[tuple[Tensor, Any]]:
        """Yield rows and targets of each batch.

        Raises:
            UsageError: If a batch has no targets.
        """
        for item in self.stream:
            if not isinstance(item, (tuple, list)) or len(item) < 2:
                raise UsageError(
                    "data: expected batches (rows, targets), got rows alone. Yield tuples, or pass an array and y."
                )
            targets = item[1]
            yield _rows_of(item), targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)


def is_stream(data: Any) -> bool:
    """Whether data are batches to iterate over, not one array."""
    if isinstance(data, (str, bytes, dict)) or hasattr(data, "__array__") or hasattr(data, "shape"):
        return False
    if isinstance(data, (list, tuple)):
        return bool(data) and all(getattr(_first(item), "ndim", 0) == 2 for item in data)
    return hasattr(data, "__iter__")


@dataclass(frozen=True)
class Moments:
    """What one look at all rows tells, in float64; bounds and moments by feature.

    Attributes:
        rows: How many there are.
        mean: Shape ``(features,)``.
        variance: Shape ``(features,)``.
        low: Smallest entry by feature.
        high: Largest entry by feature.
    """

    rows: int
    mean: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor


def moments_of(source: Source) -> Moments:
    """Read all rows once.

    Raises:
        UsageError: If there are no rows or an entry is NaN or infinite.
    """
    rows, mean, squares = 0, torch.zeros(source.features).double(), torch.zeros(source.features).double()
    low, high = torch.full_like(mean, torch.inf), torch.full_like(mean, -torch.inf)
    for batch in source.batches(_BLOCK):
        if not len(batch):
            continue
        center = batch.mean(0)
        if not bool(center.isfinite().all()):  # one NaN or infinity among the rows is enough
            raise UsageError("data: expected finite numbers, got NaN or infinity. Drop or fill such rows first.")
        low, high = torch.minimum(low, batch.amin(0).double()), torch.maximum(high, batch.amax(0).double())
        # Chan et al. 1983: merge the moments of two parts without cancellation.
        rows, before = rows + len(batch), rows
        delta = center.double() - mean
        mean = mean + delta * len(batch) / rows
        own = (batch - center).square_().sum(0).double()
        squares = squares + own + delta.square() * before * len(batch) / rows
    if not rows:
        raise UsageError("data: expected at least one row, got none. Pass data of one row or more.")
    return Moments(rows, mean, squares / rows, low, high)


def usual_batch(rows: int | None) -> int:
    """Return 100, or fewer where a pass over so many rows would hold under 100 batches; layers need updates."""
    return _BATCH if rows is None else min(_BATCH, max(_LEAST_BATCH, rows // _UPDATES))


def _first(item: Any) -> Any:
    return item[0] if isinstance(item, (tuple, list)) and item else item


def _rows_of(item: Any) -> Tensor:
    batch = _tensor(_first(item))
    if batch.dim() > 2:
        batch = batch.flatten(1)
    if batch.dim() != 2:
        raise UsageError(
            f"data: expected batches of shape (rows, features), got {tuple(batch.shape)}. "
            "Reshape a single row with .reshape(1, -1)."
        )
    return batch


def _picked(array: Any, numbers: np.ndarray) -> Tensor:
    if isinstance(array, np.ndarray) and array.dtype == np.float32 and array.flags.carray:
        return torch.from_numpy(array).index_select(0, torch.from_numpy(numbers))  # five times as fast as numpy's
    return _tensor(array[numbers])


def _tensor(rows: Any) -> Tensor:
    if isinstance(rows, Tensor):
        return rows.detach().float()
    if hasattr(rows, "toarray"):  # a sparse matrix
        rows = rows.toarray()
    try:
        rows = np.asarray(rows, dtype=np.float32)
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy())
    except (TypeError, ValueError) as error:
        raise UsageError(f"data: expected numbers, got {type(rows).__name__}: {error}.") from error
