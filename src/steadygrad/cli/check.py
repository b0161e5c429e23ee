"""``steadygrad check``: one batch, a table, findings, an exit code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from steadygrad import __version__
from steadygrad.cli.continuous import Settings, github, known_in, sarif, settings, without, write_known
from steadygrad.cli.loading import KerasModel, load_checked
from steadygrad.cli.options import Device, Format, Target, Traceback, check_report, console, on_device, only_results_on
from steadygrad.diagnosis import RULES, diagnose
from steadygrad.errors import UsageError
from steadygrad.monitor.checkpoints import checkpoint_at, load_checkpoint
from steadygrad.records import Diagnosis, Severity, to_json, to_plain, write_whole
from steadygrad.report import diagnosis_page
from steadygrad.report.text import diagnosis_text
from steadygrad.training import TrainingSetup

__all__ = ["check"]


class FailOn(StrEnum):
    """From which severity on findings give exit code 1."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    NEVER = "never"


class CheckFormat(StrEnum):
    """How a diagnosis is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


Codes = Annotated[list[str] | None, typer.Option(help="Rule code or prefix (SG1); repeat it or separate by commas.")]


def check(
    target: Target,
    output: Annotated[CheckFormat, typer.Option("--format", help="How to print the result.")] = CheckFormat.TEXT,
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
    forecast: Annotated[
        bool, typer.Option("--forecast", help="Make 25 real steps on a copy and say what will become of the training.")
    ] = False,
    baseline: Annotated[Path | None, typer.Option(help="A file of known findings, which are left out.")] = None,
    write_baseline: Annotated[Path | None, typer.Option(help="Write all findings into such a file.")] = None,
    device: Device = None,
    report: Annotated[Path | None, typer.Option(help="Write a report here (.html).")] = None,
    traceback: Traceback = False,
) -> None:
    """Check a set-up on one batch without training it: per-layer table, findings, the guilty layer.

    The callable may also return a compiled Keras model with one batch: (model, (x, y)).
    """
    if step is not None and (source is None or not source.is_dir()):
        raise UsageError("--step: expected --from with the folder of a run beside it, got none.")
    if report is not None:
        check_report(report, (".html",))
    configured = settings(Path.cwd())
    known = _known(configured, baseline)
    left_out = [*_codes(ignore), *(code for code in configured.ignore if ":" not in code)]
    if source is not None:
        left_out.append("SG4")  # how a network was initialized is nothing to ask of one that was trained
    with only_results_on(Format.TEXT if output is CheckFormat.TEXT else Format.JSON):
        loaded = load_checked(target)
        chosen = _codes(select) or list(configured.select)
        if isinstance(loaded, KerasModel):
            _refuse({"--from": source, "--forecast": forecast or None, "--device": device})
            diagnosis = _diagnose_keras(loaded, chosen, left_out)
        else:
            if source is not None:
                _load_from(source, step, loaded)
            diagnosis = diagnose(on_device(loaded, device), chosen, left_out, forecast)
    if write_baseline is not None:
        write_known(write_baseline, diagnosis)
    diagnosis = without(diagnosis, known)
    if report is not None:
        write_whole(report, diagnosis_page(diagnosis, RULES))
    _print(diagnosis, output, target.rpartition(":")[0])
    worst = max((finding.severity for finding in diagnosis.findings), default=None)
    if worst is not None and fail_on is not FailOn.NEVER and worst >= Severity[fail_on.name]:
        raise typer.Exit(1)


def _known(configured: Settings, baseline: Path | None) -> list[str]:
    """Return what identifies the findings that are known: those of the settings and of the baseline file."""
    known = [code for code in configured.ignore if ":" in code]
    file = baseline or (Path(configured.baseline) if configured.baseline else None)
    return known if file is None else [*known, *known_in(file)]


def _diagnose_keras(loaded: KerasModel, chosen: list[str], left_out: list[str]) -> Diagnosis:
    from steadygrad.integrations import keras

    return keras.diagnose(loaded.model, *loaded.batch, select=chosen, ignore=left_out)


def _refuse(options: dict[str, object]) -> None:
    """Raise for an option that Keras models do not take."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: expected a PyTorch model, got a Keras model. Leave the option out.")


def _load_from(source: Path, step: int | None, setup: TrainingSetup) -> None:
    path = checkpoint_at(source, step) if source.is_dir() else source
    load_checkpoint(setup.model, path)
    typer.echo(f"parameters from {path}", err=True)


def _print(diagnosis: Diagnosis, output: CheckFormat, place: str) -> None:
    if output is CheckFormat.JSON:
        typer.echo(_json(diagnosis))
    elif output is CheckFormat.SARIF:
        typer.echo(sarif(diagnosis, place, __version__))
    elif output is CheckFormat.GITHUB:
        typer.echo(github(diagnosis, place))
    else:
        console().print(diagnosis_text(diagnosis))


def _json(diagnosis: Diagnosis) -> str:
    verdict = {"healthy": diagnosis.healthy, "guilty": diagnosis.guilty, "confidence": diagnosis.confidence}
    return to_json(verdict | to_plain(diagnosis))


def _codes(given: list[str] | None) -> list[str]:
    return [code for part in given or [] for code in part.replace(",", " ").split()]
