"""Results as one table in a file: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steadygrad.errors import MissingDependencyError, StoreError, UsageError
from steadygrad.lab.result import Result

__all__ = ["export"]

CURVES = ("looked", "losses", "scores")


def export(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Write one row a run: a column an axis, the scores, the curves as lists (in CSV as JSON text).

    The file is written whole or not at all.

    Args:
        results: What to write.
        path: A file that ends in ``.csv``, ``.jsonl`` or ``.parquet``; the last needs pyarrow.

    Raises:
        UsageError: If it ends otherwise.
        MissingDependencyError: If pyarrow is not installed.
        StoreError: If it cannot be written.
    """
    path = Path(path)
    forms = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix not in forms:
        raise UsageError(f"export: expected a file that ends in .csv, .jsonl or .parquet, got {str(path)!r}.")
    content = forms[path.suffix]([_row(result) for result in results])
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}. Free space or name another folder.") from error


def _row(result: Result) -> dict[str, Any]:
    data = result.to_dict()
    ends = {"outcome": result.outcome, "validation": result.validation, "best": result.best}
    return {**data.pop("configuration"), **ends, **data}


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(rows))
    writer.writeheader()
    writer.writerows({**row, **{name: json.dumps(row[name]) for name in CURVES}} for row in rows)
    return text.getvalue().encode()


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            'export: expected pyarrow, which is not installed. Run: pip install "steadygrad[pandas]", or write .csv'
        ) from error
    columns = {name: _alike([row.get(name) for row in rows]) for name in _columns(rows)}
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


def _alike(values: list[Any]) -> list[Any]:
    """Return a column of one kind: as text where an axis mixes kinds."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2 or kinds == {int, float}:
        return values
    return [None if value is None else str(value) for value in values]
