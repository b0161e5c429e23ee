"""A run folder: the log as it grew, the whole history, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steadygrad.errors import DataFileError
from steadygrad.monitor.alarms import logger
from steadygrad.monitor.checkpoints import save_checkpoint, state_size
from steadygrad.monitor.monitor import Monitor
from steadygrad.monitor.sinks import JsonLines, read_log
from steadygrad.records import History, to_json, write_whole

__all__ = ["RunFolder", "read_run"]

LOG, HISTORY, SUMMARY = "log.jsonl", "history.npz", "run.json"
MOST_ALARMS = 3  # whose parameters are written
LARGEST = 2**30  # bytes; larger models are not written unasked


class RunFolder:
    """Write a run to a folder: a log while it goes on, parameters at alarms, history and summary at its end.

    Args:
        folder: Made if it does not exist.
        checkpoint_every: Write the parameters every so many steps too, at the next look; None does not.
    """

    def __init__(self, folder: Path, checkpoint_every: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = JsonLines(folder / LOG)
        self._every, self._next = checkpoint_every, checkpoint_every or 0
        self._alarms = 0
        self._monitor: Monitor | None = None
        self._started = time.time()

    def begin(self, monitor: Monitor) -> None:
        """Take the models of a monitor that has this folder among its sinks."""
        self._monitor = monitor

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Log an event of a monitor; write parameters where one is due."""
        self.log(event)
        due = self._every is not None and event["event"] == "look" and event["step"] >= self._next
        if due:
            self._next = event["step"] + (self._every or 0)
        elif event["event"] == "finding" and self._alarms < MOST_ALARMS:
            self._alarms += 1
            due = True
        if due:
            self._save(event["step"])

    def finish(self, monitor: Monitor, ended: str) -> None:
        """Write history, summary and the last parameters; a full disk costs them and nothing else."""
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
        self._save(monitor.steps)

    def _save(self, step: int) -> None:
        models = {} if self._monitor is None else self._monitor.models
        size = state_size(models)
        if not models or (size > LARGEST and self._every is None):
            return
        try:
            save_checkpoint(self.folder, models, step)
        except OSError as error:
            logger.error("step %d: no checkpoint: %s", step, error)
            self._every, self._alarms = None, MOST_ALARMS


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
