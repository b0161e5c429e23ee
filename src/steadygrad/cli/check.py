"""``steadygrad check``: one batch, a table, findings, an exit code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from steadygrad.cli.loading import load_setup
from steadygrad.cli.options import Device, Format, Output, Target, Traceback, console, on_device, only_results_on
from steadygrad.cli.treat import check_report
from steadygrad.diagnosis import RULES, diagnose
from steadygrad.errors import UsageError
from steadygrad.monitor.checkpoints import checkpoint_at, load_checkpoint
from steadygrad.records import Diagnosis, Severity, to_json, to_plain, write_whole
from steadygrad.report import diagnosis_page
from steadygrad.report.text import diagnosis_text

__all__ = ["check"]


class FailOn(StrEnum):
    """From which severity on findings give exit code 1."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    NEVER = "never"


Codes = Annotated[list[str] | None, typer.Option(help="Rule code or prefix (SG1); repeat it or separate by commas.")]


def check(
    target: Target,
    output: Output = Format.TEXT,
    select: Codes = None,
    ignore: Codes = None,
    fail_on: Annotated[FailOn, typer.Option(help="From which severity on the exit code is 1.")] = FailOn.WARNING,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Look at the network as it stood: a run folder of watch, a .safetensors file or a state dict.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(help="With --from RUN: at this step or the last one before it.")] = None,
    device: Device = None,
    report: Annotated[Path | None, typer.Option(help="Write a report here (.html).")] = None,
    traceback: Traceback = False,
) -> None:
    """Check a set-up on one batch without training it: per-layer table, findings, the guilty layer."""
    if step is not None and (source is None or not source.is_dir()):
        raise UsageError("--step: expected --from with the folder of a run beside it, got none.")
    if report is not None:
        check_report(report, (".html",))
    with only_results_on(output):
        setup = load_setup(target)
        if source is not None:
            path = checkpoint_at(source, step) if source.is_dir() else source
            load_checkpoint(setup.model, path)
            typer.echo(f"parameters from {path}", err=True)
        # How a network was initialized is nothing to ask of one that was trained.
        ignored = _codes(ignore) + (["SG4"] if source is not None else [])
        diagnosis = diagnose(on_device(setup, device), _codes(select), ignored)
    if report is not None:
        write_whole(report, diagnosis_page(diagnosis, RULES))
    if output is Format.JSON:
        typer.echo(_json(diagnosis))
    else:
        console().print(diagnosis_text(diagnosis))
    worst = max((finding.severity for finding in diagnosis.findings), default=None)
    if worst is not None and fail_on is not FailOn.NEVER and worst >= Severity[fail_on.name]:
        raise typer.Exit(1)


def _json(diagnosis: Diagnosis) -> str:
    verdict = {"healthy": diagnosis.healthy, "guilty": diagnosis.guilty, "confidence": diagnosis.confidence}
    return to_json(verdict | to_plain(diagnosis))


def _codes(given: list[str] | None) -> list[str]:
    return [code for part in given or [] for code in part.replace(",", " ").split()]
