"""Where looks and findings go: a log of JSON lines that reads up to its last whole line whenever it was cut."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from steadygrad.errors import DataFileError, SteadygradWarning
from steadygrad.records import Finding, History, to_plain
from steadygrad.records.history import LAYER_STATISTICS, STEP_STATISTICS

__all__ = ["JsonLines", "finding_event", "read_log"]


class JsonLines:
    """Append one line an event to a file, written out at once, without bare NaN, up to a size.

    Looks are thinned as the file fills up: every second one from half of the limit on, every fourth from three
    quarters, and so on. Findings are written as long as there is room. A full disk ends the log with one warning.

    Args:
        path: The file; its folder exists.
        limit: Its largest size in bytes.
    """

    def __init__(self, path: Path, limit: int = 64 * 2**20) -> None:
        self.path, self._limit, self._size, self._looks = path, limit, 0, 0
        self._names: list[str] | None = None
        self._file: TextIO | None = None
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
            self._size = self._file.tell() if self._file.seekable() else 0
        except OSError as error:
            self._end(error)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        if self._file is None:
            return
        event = dict(event)
        if event.get("event") == "look":
            self._looks += 1
            free = max(1.0 - self._size / self._limit, 1e-9)
            if self._looks % 2 ** int(-math.log2(free)):
                return
            names = event.pop("names")
            if names != self._names:
                self._names = names
                self._write({"event": "layers", "names": names})
        self._write(event)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._end(error)
            self._file = None

    def _write(self, event: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        line = json.dumps(to_plain(_rounded(event)), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        if self._size + len(line) + 1 > self._limit:
            return
        try:
            self._file.write(line + "\n")
            self._size += len(line) + 1
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                self._size = self._limit  # nothing more to say: the warning below names the cause
        warnings.warn(
            f"{self.path}: expected to log on, got {error.strerror}. The monitor keeps its numbers in memory only.",
            SteadygradWarning,
            stacklevel=3,
        )


def read_log(path: Path) -> tuple[History, list[dict[str, Any]], int]:
    """Read a log of JSON lines.

    Returns:
        The looks, all other events (findings first to last, the end), and the number of lines that could not be read.

    Raises:
        DataFileError: If there is no such file, or nothing in it can be read.
    """
    history, bad = History(), 0
    events: list[dict[str, Any]] = []
    names: list[str] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataFileError(f"{path}: expected the log of a run, got {error.strerror}.") from error
    for line in lines:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if event["event"] == "look":
                _append(history, names, event)
            elif event["event"] == "layers":
                names = event["names"]
            else:
                events.append(event)
        except (ValueError, KeyError, TypeError):
            bad += 1
    if bad and not len(history) and not events:
        raise DataFileError(f"{path}: expected JSON lines, got {bad} lines that are none. Is it the log of a run?")
    return history, events, bad


def _append(history: History, names: list[str], event: dict[str, Any]) -> None:
    history.add_layers(names)
    values = np.full((len(history.layers), len(LAYER_STATISTICS)), np.nan)
    places = [history.layers.index(name) for name in names]
    for statistic, column in event["layers"].items():
        if statistic in LAYER_STATISTICS:
            where = LAYER_STATISTICS.index(statistic)
            values[places[: len(column)], where] = [math.nan if value is None else float(value) for value in column]
    totals = {name: float(event[name]) for name in STEP_STATISTICS if event.get(name) is not None}
    history.append(int(event["step"]), totals, values)


def finding_event(finding: Finding, step: int) -> dict[str, Any]:
    """Return a finding as plain data for sinks."""
    return {"event": "finding", "step": step, **to_plain(finding)}


def _rounded(value: Any) -> Any:
    """Return plain data with floats cut to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
