"""A run folder: the log as it grew, the whole history, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steadygrad.errors import DataFileError
from steadygrad.monitor.monitor import Monitor
from steadygrad.monitor.sinks import JsonLines, read_log
from steadygrad.records import History, to_json, write_whole

__all__ = ["RunFolder", "read_run"]

LOG, HISTORY, SUMMARY = "log.jsonl", "history.npz", "run.json"


class RunFolder:
    """Write a run to a folder: a log while it goes on, history and summary at its end.

    Args:
        folder: Made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = JsonLines(folder / LOG)
        self._started = time.time()

    def finish(self, monitor: Monitor, ended: str) -> None:
        """Write history and summary; a full disk costs them and nothing else."""
        self.log({"event": "end", "ended": ended})
        self.log.close()
        summary = {
            "script": sys.argv,
            "started": self._started,
            "seconds": time.time() - self._started,
            "steps": monitor.steps,
            "every": monitor.every,
            "ended": ended,
            "findings": list(monitor.findings),
            "clipping": monitor.clipping,
            "unseen": monitor.unseen,
        }
        try:
            monitor.history.save(self.folder / HISTORY)
            write_whole(self.folder / SUMMARY, to_json(summary))
        except OSError as error:
            print(f"steadygrad: {self.folder}: {error.strerror}; the log alone is kept", file=sys.stderr)


def read_run(folder: Path) -> tuple[History, list[dict[str, Any]], Mapping[str, Any]]:
    """Read a run folder, also one whose run was killed.

    Returns:
        The history (from the log where the run did not come to its end), findings as plain data, and the summary;
        the summary of a killed run holds ``ended`` alone.

    Raises:
        DataFileError: If there is no run.
    """
    if not folder.is_dir():
        raise DataFileError(f"{folder}: expected the folder of a run, found none. steadygrad watch writes one.")
    logged, events, _ = read_log(folder / LOG)
    findings = [event for event in events if event["event"] == "finding"]
    summary: Mapping[str, Any] = {"ended": "killed"}
    if (folder / SUMMARY).is_file() and (folder / HISTORY).is_file():
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataFileError(f"{folder / SUMMARY}: expected JSON, got {error}.") from error
        return History.load(folder / HISTORY), findings, summary
    return logged, findings, summary
