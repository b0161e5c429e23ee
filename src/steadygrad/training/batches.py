"""Turn whatever holds the data into batches: tensors, arrays, dicts of them, or any re-iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.errors import SetupError
from steadygrad.training.blame import blamed, describe
from steadygrad.training.setup import Batch, Data, TrainingSetup
from steadygrad.training.snapshot import preserved_random_state

__all__ = [
    "device_of",
    "first_batch",
    "floating_dtype",
    "generators_of",
    "is_arrays",
    "move",
    "one_pass",
    "row_count",
    "seed_of_pass",
    "shuffled_rows",
    "split",
    "target_of",
]

TARGET_NAMES = ("target", "targets", "label", "labels", "y")
WANTED = (
    "Pass a tuple or dict of tensors or arrays of equal length ((x,) where there is no target), "
    "or a DataLoader or list of batches"
)


def is_arrays(data: Data) -> bool:
    """Whether ``data`` is a tuple or dict of tensors or arrays of equal length, not an iterable of batches.

    Raises:
        SetupError: If it looks like one and is none: unequal lengths, tensors mixed with other things, or a tensor
            by itself.
    """
    columns = _columns(data)
    arrays = [isinstance(column, (Tensor, np.ndarray)) and column.ndim > 0 for column in columns]
    alone = isinstance(data, (Tensor, np.ndarray, str, bytes))
    if alone or (any(arrays) and not all(arrays)) or (isinstance(data, Mapping) and not any(arrays)):
        raise SetupError(f"data: expected tensors or arrays, or batches of them, got {describe(data)}. {WANTED}.")
    if not columns or not all(arrays):
        return False
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise SetupError(
            f"data: expected tensors or arrays of equal length, got lengths {', '.join(map(str, lengths))}. "
            "Every row of the inputs needs its target; for batches in a tuple pass a list."
        )
    return True


def row_count(batch: Batch) -> int:
    """Return the number of samples of a batch: the length of its first tensor; 0 if it has none."""
    return next((len(leaf) for leaf in _tensors(batch) if leaf.dim()), 0)


def target_of(batch: Batch) -> Any:
    """Return the target of a batch: the last item of a tuple, or the entry of a dict with a target's name."""
    if isinstance(batch, Mapping):
        return next((batch[name] for name in TARGET_NAMES if name in batch), None)
    if isinstance(batch, Sequence) and len(batch) > 1:
        return batch[-1]
    return None


def device_of(setup: TrainingSetup) -> torch.device:
    """Return where the set-up runs: its ``device``, else where the model's first parameter lies."""
    return torch.device(setup.device) if setup.device is not None else _device_of_model(setup)


def floating_dtype(setup: TrainingSetup) -> torch.dtype:
    """Return the dtype that floating arrays take: that of the model's first floating parameter."""
    dtypes = (parameter.dtype for parameter in setup.model.parameters() if parameter.is_floating_point())
    return next(dtypes, torch.get_default_dtype())


def generators_of(data: Data) -> list[torch.Generator]:
    """Return the random generators that a DataLoader and its samplers hold as their own."""
    owners = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def move(batch: Batch, device: torch.device, floating: torch.dtype | None = None) -> Batch:
    """Return the batch with arrays as tensors, all on ``device``; other objects are passed through.

    Floating NumPy arrays take the dtype ``floating``, by default torch's own default; integer ones become int64, as
    losses and embeddings want. The dtype of tensors is kept.
    """
    if isinstance(batch, np.ndarray):
        if batch.dtype.kind not in "biufc":
            raise SetupError(
                f"data: expected numbers, got an array of dtype {batch.dtype}. Encode it as integers or floats first."
            )
        kept = np.array(batch, dtype=np.int64 if batch.dtype.kind in "iu" else batch.dtype.newbyteorder("="))
        dtype = (floating or torch.get_default_dtype()) if batch.dtype.kind == "f" else None
        return torch.from_numpy(kept).to(device, dtype)
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move(item, device, floating) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(item, device, floating) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(item, device, floating) for item in batch)
    return batch


def one_pass(
    data: Data,
    batch_size: int,
    device: torch.device,
    seed: int | None = None,
    floating: torch.dtype | None = None,
) -> Iterator[Batch]:
    """Yield the batches of one pass over ``data``.

    Args:
        data: See :class:`TrainingSetup`.
        batch_size: Rows a batch, for tensors and arrays; other data come in their own batches.
        device: Where the batches go.
        seed: Shuffles tensors and arrays, then leaves out a smaller last batch; None keeps order and all rows.
        floating: The dtype that floating NumPy arrays take; see :func:`move`.

    Raises:
        SetupError: If ``data`` is of another form, holds no rows, or raises.
    """
    if not is_arrays(data):
        yield from (move(batch, device, floating) for batch in _iterate(data))
        return
    rows = len(_columns(data)[0])
    if not rows:
        raise SetupError("data: expected at least one sample, got none. Pass data of one row or more.")
    for index in torch.arange(rows).split(batch_size) if seed is None else shuffled_rows(rows, batch_size, seed):
        yield move(_rows(data, index), device, floating)


def shuffled_rows(rows: int, batch_size: int, seed: int) -> tuple[Tensor, ...]:
    """Return the row numbers of each batch of one shuffled pass; a smaller last one is left out unless alone."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[: max(rows - rows % batch_size, min(rows, batch_size))].split(batch_size)


def seed_of_pass(seed: int, epoch: int) -> int:
    """Return the seed of the order of a training's pass number ``epoch``, from 0."""
    return seed + 7919 * epoch


def first_batch(setup: TrainingSetup) -> Batch:
    """Return the batch that a diagnosis looks at, where the model lies: the first of the set-up's training.

    Random states are left as found, those of a DataLoader's own generator included.

    Raises:
        SetupError: If the training data are empty, of another form, or raise.
    """
    device, floating = _device_of_model(setup), floating_dtype(setup)
    with preserved_random_state(*generators_of(setup.train)):
        batch = next(one_pass(setup.train, setup.batch_size, device, setup.seed, floating), None)
    if batch is None:
        raise SetupError(
            "data: expected at least one batch, got nothing. "
            "Pass data with a batch or more that can be read again and again, not a generator that has run dry."
        )
    if row_count(batch) == 0 and any(True for _ in _tensors(batch)):
        raise SetupError("data: expected at least one sample, got an empty batch. Pass data of one row or more.")
    return batch


def split(data: Data, fraction: float, seed: int, most_batches: int = 2000) -> tuple[Data, Data]:
    """Split data in two for a choice that must not touch the validation set.

    Tensors and arrays are split by rows at random. Of an iterable, up to ``most_batches`` batches are read once and
    kept; every k-th goes to the second part.

    Returns:
        The larger part and the part of about ``fraction``.
    """
    if is_arrays(data):
        rows = len(_columns(data)[0])
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
        held = min(max(1, round(rows * fraction)), rows - 1) if rows > 1 else 0
        return (_rows(data, order[held:]), _rows(data, order[:held])) if held else (data, data)
    batches = list(islice(_iterate(data), most_batches))
    if len(batches) < 2:
        return batches, batches
    every = max(2, round(1 / fraction))
    return [b for i, b in enumerate(batches) if i % every], batches[::every]


def _device_of_model(setup: TrainingSetup) -> torch.device:
    return next((parameter.device for parameter in setup.model.parameters()), torch.device("cpu"))


def _iterate(data: Data) -> Iterator[Batch]:
    try:
        batches = iter(data)
    except TypeError as error:
        raise SetupError(f"data: expected something to iterate over, got {describe(data)}. {WANTED}.") from error
    with blamed("data: reading a batch failed"):
        for batch in batches:
            if isinstance(batch, (str, bytes, int, float)):
                raise SetupError(
                    f"data: expected batches of tensors, got one of type {type(batch).__name__}. {WANTED}."
                )
            yield batch


def _columns(data: Data) -> list[Any]:
    if isinstance(data, Mapping):
        return list(data.values())
    return list(data) if isinstance(data, tuple) else []


def _rows(data: Data, index: Tensor) -> Data:
    if isinstance(data, Mapping):
        return {key: _take(column, index) for key, column in data.items()}
    columns = [_take(column, index) for column in data]
    return type(data)(*columns) if hasattr(data, "_fields") else tuple(columns)


def _take(column: Any, index: Tensor) -> Any:
    return column[index.numpy()] if isinstance(column, np.ndarray) else column[index.to(column.device)]


def _tensors(batch: Batch) -> Iterable[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for item in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(item)
