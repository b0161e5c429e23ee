"""Records as plain data for JSON, without bare NaN or infinity, and files that are written whole."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

__all__ = ["to_json", "to_plain", "whole_file", "write_whole"]


def to_plain(value: Any) -> Any:
    """Turn a record into dicts, lists, strings and numbers.

    Non-finite floats become the strings ``"nan"``, ``"inf"`` and ``"-inf"``, because JSON has no such numbers.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, int) else value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_json(value: Any) -> str:
    """Turn a record into JSON text that any parser reads and any terminal shows."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False)


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that it is there whole or not at all.

    Raises:
        OSError: If the folder does not exist or cannot be written to.
    """
    with whole_file(path) as draft:
        draft.write_text(content, encoding="utf-8", newline="\n")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a draft beside ``path`` that takes its place at the end of the block.

    If the block raises, the draft is removed, and what stood at ``path`` stays.

    Raises:
        OSError: If the folder does not exist or cannot be written to.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
