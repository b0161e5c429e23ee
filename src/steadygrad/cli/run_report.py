"""Write the report of a watched run, as ``show --report`` and ``watch --report`` do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from steadygrad.diagnosis import RULES
from steadygrad.errors import DataFileError
from steadygrad.monitor import read_run
from steadygrad.records import Finding, Severity, Symptom, write_whole
from steadygrad.report import run_page

__all__ = ["RunReport", "write_run_report"]

RunReport = Annotated[Path | None, typer.Option("--report", help="Write the run as one HTML page here.")]


def write_run_report(run: Path, report: Path) -> None:
    """Write the page of a run folder, also of a run that was killed.

    Raises:
        DataFileError: If there is no run, or its log holds findings of another kind.
    """
    history, events, summary = read_run(run)
    try:
        alarms = [(int(event["step"]), _finding(event)) for event in events]
    except (KeyError, TypeError, ValueError) as error:
        raise DataFileError(f"{run}: expected findings as steadygrad watch logs them, got {error!r}.") from error
    write_whole(report, run_page(history, alarms, {"name": str(run), **summary}, RULES))


def _finding(event: Mapping[str, Any]) -> Finding:
    return Finding(
        code=str(event["code"]),
        symptom=Symptom(event["symptom"]),
        severity=Severity[event["severity"].upper()],
        message=str(event["message"]),
        advice=str(event["advice"]),
        layer=None if event["layer"] is None else str(event["layer"]),
        evidence={str(name): float(value) for name, value in event["evidence"].items()},
        confidence=float(event["confidence"]),
    )
