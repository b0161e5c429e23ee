"""One HTML file that opens offline: light and dark, phone and paper, no script and no request.

Every word that comes from a record is escaped by :func:`_safe`, and the page's own policy forbids scripts and loads
altogether. The same records give the same bytes: a page bears no date.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from steadygrad.records import Diagnosis, Finding, Prescription, Proof, Trial, Verdict
from steadygrad.report import letter
from steadygrad.report.charts import curves_chart, profile_chart
from steadygrad.report.tables import (
    Gap,
    Row,
    Sheet,
    layer_name,
    layer_sheet,
    mean_and_spread,
    number,
    plain,
    proof_sheet,
    trial_sheet,
    yardsticks,
)

__all__ = ["diagnosis_page", "notebook_html", "treatment_page"]

LAYERS_SHOWN = 100
NOTEBOOK_LAYERS = 20


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """Return the page of a diagnosis: findings, profile of signal and gradient, layers, and what was not seen."""
    profile = profile_chart(diagnosis.blueprint, {"diagnosis": diagnosis.observation}, diagnosis.guilty)
    body = (
        _head(letter.headline(diagnosis), diagnosis.healthy, letter.where(diagnosis)),
        _soft(letter.facts(diagnosis)),
        _section("Findings", _findings(diagnosis.findings)) if diagnosis.findings else "",
        _section("Signal and gradient", profile),
        _section("Layers", _table(_layers(diagnosis, LAYERS_SHOWN))),
        _section("Not seen", _list(diagnosis.blueprint.unseen)) if diagnosis.blueprint.unseen else "",
    )
    return _document(letter.headline(diagnosis), body)


def treatment_page(
    diagnosis: Diagnosis,
    diagnosis_after: Diagnosis | None,
    trials: Sequence[Trial],
    proof: Proof | None,
    verdict: Verdict,
    prescription: Prescription | None,
    notes: Sequence[str] = (),
) -> str:
    """Return the page of a treatment: outcome first, then what was found, tried and recommended, and the evidence."""
    good = verdict in (Verdict.HEALTHY, Verdict.CURED)
    looks = {"before": diagnosis.observation}
    if diagnosis_after is not None:
        looks["after"] = diagnosis_after.observation
    found = _paragraph(f"{letter.headline(diagnosis)}. {letter.where(diagnosis)}") + _soft(letter.facts(diagnosis))
    body = (
        _head(verdict.value.capitalize(), good, letter.VERDICTS[verdict].partition(": ")[2].capitalize()),
        _key_figures(proof) if proof else "",
        _section("Found", found, _findings(diagnosis.findings)),
        _section("Tried", _paragraph(letter.tried(trials)), _table(trial_sheet(trials)) if trials else ""),
        _section("Recommended", *_recommended(prescription)),
        _section("Notes", _list(notes)) if notes else "",
        _section("Before and after", *_evidence(proof)),
        _section("Signal and gradient", profile_chart(diagnosis.blueprint, looks, diagnosis.guilty)),
        _section("Layers before", _table(_layers(diagnosis, LAYERS_SHOWN))),
        _section("Layers after", _table(_layers(diagnosis_after, LAYERS_SHOWN))) if diagnosis_after else "",
        _section("Not seen", _list(diagnosis.blueprint.unseen)) if diagnosis.blueprint.unseen else "",
    )
    return _document(verdict.value.capitalize(), body)


def notebook_html(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as an HTML fragment in the notebook's own style: summary, findings, a short layer table."""
    summary = f"<p><strong>{_safe(letter.headline(diagnosis))}.</strong> {_safe(letter.where(diagnosis))}</p>"
    table = _table(_layers(diagnosis, NOTEBOOK_LAYERS))
    return f'<div class="steadygrad">{summary}{_findings(diagnosis.findings)}{table}</div>'


def _document(title: str, body: Iterable[str]) -> str:
    style = files("steadygrad.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>steadygrad: {_safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n<footer><p>What a code means: <code>steadygrad explain CODE</code></p></footer>\n"
        + "</main>\n</body>\n</html>\n"
    )


def _safe(text: str) -> str:
    return escape(plain(text))


def _head(title: str, good: bool, sentence: str) -> str:
    heading = f'<h1 class="{"good" if good else "bad"}">{_safe(title)}</h1>'
    return f'<header><p class="name">steadygrad</p>\n{heading}\n{_paragraph(sentence)}</header>'


def _paragraph(text: str) -> str:
    return f"<p>{_safe(text)}</p>\n" if text else ""


def _soft(text: str) -> str:
    return f'<p class="soft">{_safe(text)}</p>'


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{_safe(title)}</h2>\n{''.join(parts)}\n</section>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_safe(line)}</li>' for line in lines)}</ul>"


def _recommended(prescription: Prescription | None) -> tuple[str, str]:
    rationale = prescription.rationale if prescription else ""
    return _paragraph(rationale), _list(letter.recommendation(prescription))


def _key_figures(proof: Proof) -> str:
    runs = (("before", proof.before), ("after", proof.after))
    figures = [(f"{proof.metric} {when}", mean_and_spread(them)) for when, them in runs]
    figures += yardsticks(proof)
    cells = "".join(f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in figures)
    return f'<dl class="figures">{cells}</dl>'


def _evidence(proof: Proof | None) -> tuple[str, ...]:
    if proof is None:
        return (_paragraph("No paired training was made, so nothing is proven."),)
    return _table(proof_sheet(proof)), curves_chart({"before": proof.before, "after": proof.after})


def _findings(findings: Sequence[Finding]) -> str:
    items = "\n".join(map(_finding, findings[: letter.FINDINGS_SHOWN]))
    rest = letter.left_out(findings)
    return f'<ul class="findings">\n{items}\n</ul>{_soft(rest) if rest else ""}' if findings else ""


def _finding(finding: Finding) -> str:
    layer = f" <code>{escape(layer_name(finding.layer))}</code>" if finding.layer is not None else ""
    severity = f'<span class="severity">{finding.severity.label}</span>'
    evidence = ", ".join(f"{key} {number(value)}" for key, value in finding.evidence.items())
    return (
        f'<li class="{finding.severity.label}"><p>{severity} <code>{_safe(finding.code)}</code>{layer}</p>'
        f"{_paragraph(finding.message)}{_paragraph(finding.advice)}{_soft(evidence) if evidence else ''}</li>"
    )


def _layers(diagnosis: Diagnosis, limit: int) -> Sheet:
    return layer_sheet(diagnosis.observation, diagnosis.blueprint, diagnosis.guilty, limit)


def _table(sheet: Sheet) -> str:
    head = "".join(
        f'<th scope="col"{_number_class(column.numeric)}>{_safe(column.title)}</th>' for column in sheet.columns
    )
    body = "\n".join(_row(row, sheet) for row in sheet.rows)
    foot = f"<tfoot>{''.join(_row(row, sheet) for row in sheet.footer)}</tfoot>" if sheet.footer else ""
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>{foot}</table></div>{_soft(sheet.caption) if sheet.caption else ''}"
    )


def _row(row: Row | Gap, sheet: Sheet) -> str:
    if isinstance(row, Gap):
        return f'<tr class="gap"><td colspan="{len(sheet.columns)}">{_safe(str(row))}</td></tr>'
    cells = list(map(escape, row.cells))
    named = next(i for i, column in enumerate(sheet.columns) if not column.numeric)
    if row.marked and sheet.mark:
        cells[named] += f" <em>({escape(sheet.mark)})</em>"
    inside = "".join(
        f'<th scope="row">{cell}</th>' if i == named else f"<td{_number_class(column.numeric)}>{cell}</td>"
        for i, (cell, column) in enumerate(zip(cells, sheet.columns, strict=True))
    )
    return f'<tr class="marked">{inside}</tr>' if row.marked else f"<tr>{inside}</tr>"


def _number_class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
