"""Records for the terminal, as rich renderables.

User text (layer names, messages) goes in as :class:`rich.text.Text`, never as markup, so ``[red]`` in a name stays
what it is. Color is never the only mark, since rich drops it for pipes and under ``NO_COLOR``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steadygrad.records import (
    Blueprint,
    Diagnosis,
    Finding,
    Observation,
    Part,
    Prescription,
    Proof,
    Severity,
    Trial,
    Verdict,
)
from steadygrad.report import letter
from steadygrad.report.tables import Column, Gap, Row, Sheet, layer_name, layer_sheet, plain, proof_sheet, trial_sheet

__all__ = [
    "before_after",
    "diagnosis_text",
    "findings_list",
    "layer_table",
    "sheet_table",
    "treatment_text",
    "trials_table",
]

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "blue"}


def layer_table(observation: Observation, blueprint: Blueprint, guilty: str | None = None, limit: int = 40) -> Table:
    """Return a table with one row a layer call, the guilty one marked ``>``; long tables lose their middle."""
    return sheet_table(layer_sheet(observation, blueprint, guilty, limit))


def trials_table(trials: Sequence[Trial]) -> Table:
    """Return a table of what was tried, what it brought and what it cost; the chosen trial is marked ``>``."""
    return sheet_table(trial_sheet(trials))


def before_after(proof: Proof) -> Table:
    """Return a table of the paired trainings, seed by seed, with chance and goal below it."""
    return sheet_table(proof_sheet(proof))


def findings_list(findings: Sequence[Finding]) -> RenderableType:
    """Return every finding with severity, code, layer, message and advice."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings[: letter.FINDINGS_SHOWN]:
        body = Text()
        if finding.layer is not None:
            body.append(f"{layer_name(finding.layer)}\n", style="bold")
        body.append(plain(finding.message))
        if finding.advice:
            body.append("\nWhat to do: ", style="italic").append(plain(finding.advice))
        severity = Text(finding.severity.label, style=STYLES[finding.severity])
        grid.add_row(severity, Text(plain(finding.code, 20)), body)
    rest = letter.left_out(findings)
    return Group(grid, Text(rest)) if rest else grid


def diagnosis_text(diagnosis: Diagnosis) -> RenderableType:
    """Return the whole diagnosis: summary, layers, findings, and what was not seen."""
    parts: list[RenderableType] = [
        _summary(diagnosis),
        Text(letter.facts(diagnosis), style="dim"),
        Text(),
        layer_table(diagnosis.observation, diagnosis.blueprint, diagnosis.guilty),
    ]
    if diagnosis.findings:
        parts += [_heading("Findings"), findings_list(diagnosis.findings)]
    if diagnosis.blueprint.unseen:
        parts += [_heading("Not seen"), _bullets(diagnosis.blueprint.unseen)]
    return Group(*parts)


def treatment_text(
    diagnosis: Diagnosis,
    trials: Sequence[Trial],
    proof: Proof | None,
    verdict: Verdict,
    prescription: Prescription | None,
    notes: Sequence[str] = (),
    parts: Sequence[Part] = (),
    doubts: Sequence[str] = (),
) -> RenderableType:
    """Return a doctor's letter: found, tried, recommended, unsure, and last the table of before and after."""
    blocks: list[RenderableType] = [_heading("Found", first=True), _summary(diagnosis)]
    if diagnosis.findings:
        blocks += [Text(), findings_list(diagnosis.findings)]
    blocks += [_heading("Tried"), Text(letter.tried(trials))]
    if trials:
        blocks.append(trials_table(trials))
    blocks.append(_heading("Recommended"))
    if prescription is not None and prescription.rationale:
        blocks.append(Text(plain(prescription.rationale)))
    blocks.append(_bullets(letter.recommendation(prescription)))
    if snippet := letter.code(prescription):
        blocks += [Text(f"\n{letter.CODE}"), Text(snippet)]
    sections = {"What mattered": letter.mattered(parts), "Notes": notes, "What remains unsure": doubts}
    for heading, lines in sections.items():
        if lines:
            blocks += [_heading(heading), _bullets(lines)]
    blocks += [_heading("Before and after"), Text(letter.VERDICTS[verdict], style="bold")]
    blocks.append(before_after(proof) if proof else Text("No paired training was made, so nothing is proven."))
    return Group(*blocks)


def _summary(diagnosis: Diagnosis) -> Text:
    line = Text(letter.headline(diagnosis), style="bold green" if diagnosis.healthy else "bold red")
    for sentence in filter(None, (letter.where(diagnosis), letter.foretold(diagnosis))):
        line.append(f"\n{sentence}", style="not bold default")
    return line


def _heading(words: str, first: bool = False) -> Text:
    return Text(words if first else f"\n{words}", style="bold underline")


def _bullets(lines: Iterable[str]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(plain(line)))
    return grid


def sheet_table(sheet: Sheet) -> Table:
    """Return any sheet as a table; marked rows are bold and begin with ``>``."""
    marked = any(isinstance(row, Row) and row.marked for row in sheet.rows)
    notes = (f"> {sheet.mark}" if marked and sheet.mark else "", sheet.caption)
    caption = Text(" · ".join(note for note in notes if note))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    table.add_column("", no_wrap=True, width=1)
    for position, column in enumerate(sheet.columns):
        _add_column(table, column, [row.cells[position] for row in sheet.rows if isinstance(row, Row)])
    for row in sheet.rows:
        if isinstance(row, Gap):
            table.add_row("", Text(str(row), style="dim"))
        else:
            table.add_row(">" if row.marked else "", *map(Text, row.cells), style="bold" if row.marked else "")
    for position, row in enumerate(sheet.footer):
        if position == 0:
            table.add_section()
        table.add_row("", *map(Text, row.cells), style="bold")
    return table


def _add_column(table: Table, column: Column, cells: Sequence[str]) -> None:
    if column.numeric:  # cut digits would lie, so a number that finds no room ends in an ellipsis
        title = Text(column.title.replace(" ", "\n"))
        table.add_column(title, justify="right", no_wrap=True, overflow="ellipsis")
    else:
        widest = max(map(len, (*column.title.split(), *cells)))
        table.add_column(Text(column.title), min_width=min(widest, 12), overflow="fold")
