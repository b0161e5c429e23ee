from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from steadygrad.boltzmann.sources import ArraySource


def read_only(rows: np.ndarray) -> np.ndarray:
    rows.setflags(write=False)
    return rows


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda rows: rows,
    "float64": lambda rows: rows.astype(np.float64),
    "read-only": read_only,
    "columns first": np.asfortranarray,
    "a view": lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    "backwards": lambda rows: rows[::-1].copy()[::-1],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chosen", [None, np.array([1, 4, 7, 30])], ids=["all rows", "some rows"])
def test_batches_hold_the_numbered_rows_of_any_array(
    way: str, chosen: np.ndarray | None, recwarn: pytest.WarningsRecorder
) -> None:
    rows = np.random.default_rng(0).random((31, 5), dtype=np.float32)
    seen = []
    for numbers, batch in ArraySource(WAYS[way](rows.copy()), chosen).numbered(7, seed=3):
        assert batch.dtype == torch.float32
        assert np.array_equal(batch.numpy(), rows[numbers])
        batch.zero_()  # what is done to a batch never reaches the data: see the next ones
        seen += numbers.tolist()
    assert sorted(seen) == (list(range(31)) if chosen is None else chosen.tolist())
    assert not recwarn.list


def test_a_memory_mapped_array_is_read_and_left_alone(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((31, 5), dtype=np.float32)
    np.save(tmp_path / "rows.npy", rows)
    source = ArraySource(np.load(tmp_path / "rows.npy", mmap_mode="r+"))
    for numbers, batch in source.numbered(7, seed=3):
        assert np.array_equal(batch.numpy(), rows[numbers])
        batch.zero_()
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows)
