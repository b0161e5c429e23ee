"""``steadygrad treat``: try remedies, prove the best one, write the report and the cure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steadygrad import doctor
from steadygrad.cli.loading import load_setup
from steadygrad.cli.options import (
    Device,
    Format,
    Output,
    Target,
    Traceback,
    Workers,
    check_report,
    console,
    on_device,
    only_results_on,
)
from steadygrad.cli.progress import live_progress
from steadygrad.errors import UsageError
from steadygrad.records import Verdict, to_json
from steadygrad.report.text import treatment_text
from steadygrad.training import Executor, Processes, Serial

__all__ = ["Seed", "executor_of", "print_treatment", "treat"]

Seed = Annotated[
    int, typer.Option(min=0, max=2**32, help="Seed of the search; the proof uses the three seeds after it.")
]


class Allowed(StrEnum):
    """What a treatment leaves as it is unless told otherwise."""

    WIDTH = "width"
    DEPTH = "depth"
    DATA = "data"


def treat(
    target: Target,
    trials: Annotated[int, typer.Option(min=1, help="Prescriptions to try at most.")] = 20,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps a training; by default the set-up's own.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Start no new trial after this time; the proof is still made.")
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    allow: Annotated[
        list[Allowed] | None, typer.Option(help="Also change this; may be given several times. Otherwise it stays.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report here (.html or .json).")] = None,
    save: Annotated[Path | None, typer.Option(help="Write prescription and trained weights into this folder.")] = None,
    output: Output = Format.TEXT,
    device: Device = None,
    traceback: Traceback = False,
) -> None:
    """Treat a set-up: diagnose it, try remedies by short trainings, prove the best one on three fresh seeds.

    The exit code is 1 if it is not cured.
    """
    budget = doctor.Budget(trials=trials, steps=steps, seconds=seconds)
    if report is not None:
        check_report(report, (".html", ".json"))
    if save is not None and (save.exists() and not save.is_dir()):
        raise UsageError(f"--save: expected a folder, got the file {str(save)!r}. Name another one.")
    with only_results_on(output):
        setup = on_device(load_setup(target), device)
        with live_progress() as progress:
            treatment = doctor.treat(setup, budget, seed, executor_of(workers), progress, allow or ())
    if report is not None:
        treatment.save(report)
    if save is not None and treatment.prescription is not None:
        doctor.save_cured(treatment, save)
    if output is Format.JSON:
        typer.echo(to_json(treatment.to_dict()))
    else:
        print_treatment(console(), treatment, report, save)
    if treatment.verdict is Verdict.NOT_CURED:
        raise typer.Exit(1)


def executor_of(workers: int | None) -> Executor:
    """Return where trainings run: in this process for one worker."""
    return Serial() if workers == 1 else Processes(workers)


def print_treatment(
    screen: Console, treatment: doctor.Treatment, report: Path | None = None, save: Path | None = None
) -> None:
    """Print the letter, and where files were written above it, so that the before/after table ends the output."""
    if report is not None:
        screen.print(f"Report written to {report}", soft_wrap=True, markup=False)
    if save is not None and treatment.prescription is None:
        screen.print("There is no cure to save.")
    elif save is not None:
        screen.print(f"Cure written to {save}: load it with steadygrad.load_cured", soft_wrap=True, markup=False)
    if report is not None or save is not None:
        screen.print()
    screen.print(
        treatment_text(
            treatment.diagnosis,
            treatment.trials,
            treatment.proof,
            treatment.verdict,
            treatment.prescription,
            treatment.notes,
            treatment.parts,
            treatment.doubts,
        )
    )
