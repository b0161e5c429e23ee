"""Results on disk: one SQLite file, a row a run, under the hash of its configuration."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from steadygrad.errors import StoreError
from steadygrad.lab.result import Result

__all__ = ["Store"]

APPLICATION = 0x5347_4C42  # "SGLB": says whose file it is
SCHEMA = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL) STRICT"


class Store:
    """Results by key; only the process that drives a grid writes, in transactions, so that a crash loses none.

    Args:
        path: The file, made if it does not exist; None keeps the results in memory.

    Raises:
        StoreError: If the file is no store, is corrupted, or cannot be written to. What is stored stays.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else None
        with self._told():
            self._database = sqlite3.connect(self.path or ":memory:")
            (owner,) = self._database.execute("PRAGMA application_id").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if owner != APPLICATION and tables:
                raise StoreError(f"{self.path}: expected a store of results, got another database. Name another file.")
            with self._database:
                if not tables:
                    self._database.execute(f"PRAGMA application_id = {APPLICATION}")
                self._database.execute(SCHEMA)

    def __len__(self) -> int:
        with self._told():
            return int(self._database.execute("SELECT count(*) FROM results").fetchone()[0])

    def __contains__(self, key: str) -> bool:
        with self._told():
            return self._database.execute("SELECT 1 FROM results WHERE key = ?", (key,)).fetchone() is not None

    def __iter__(self) -> Iterator[Result]:
        """Yield the results in the order in which they were stored."""
        with self._told():
            for (text,) in self._database.execute("SELECT result FROM results ORDER BY rowid"):
                yield Result.from_dict(json.loads(text))

    def get(self, key: str) -> Result | None:
        """Return the result of a key; None if there is none."""
        with self._told():
            found = self._database.execute("SELECT result FROM results WHERE key = ?", (key,)).fetchone()
            return Result.from_dict(json.loads(found[0])) if found else None

    def add(self, keys: Sequence[str], results: Sequence[Result]) -> None:
        """Store results, all or none of them; one that is there already stays as it is."""
        rows = [(key, json.dumps(result.to_dict())) for key, result in zip(keys, results, strict=True)]
        with self._told(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite or a damaged row raises into a sentence."""
        try:
            yield
        except sqlite3.OperationalError as error:  # no such folder, read-only, full, locked
            raise StoreError(
                f"{self.path}: the results cannot be read or stored: {error}. What was stored before stays: "
                "free space, end other programs that use the file, or name another file, then run again to resume."
            ) from error
        except (sqlite3.DatabaseError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path}: expected a store of results, got a damaged or foreign file: {error}. "
                "Move it away and run again, or recover it with sqlite3's .recover."
            ) from error
