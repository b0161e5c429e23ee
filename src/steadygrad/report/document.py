"""The frame of a page, and the parts that every page is made of.

Every word that comes from a record is escaped by :func:`safe`. The page's own policy lets nothing run or load but its
own script and style, which it names by their hashes, and pictures that it holds itself. The same records give the same
bytes: a page bears no date.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Protocol

from steadygrad.records import Finding
from steadygrad.report import letter
from steadygrad.report.tables import Gap, Row, Sheet, layer_name, number, plain

__all__ = [
    "Card",
    "bullets",
    "document",
    "figures",
    "findings_list",
    "head",
    "listing",
    "paragraph",
    "picture",
    "safe",
    "section",
    "soft",
    "table",
]


class Card(Protocol):
    """What explains a code; the rules of :mod:`steadygrad.diagnosis` do."""

    @property
    def title(self) -> str:
        """A few words."""

    @property
    def meaning(self) -> str:
        """What the finding means for the training."""

    @property
    def threshold(self) -> str:
        """Formula and threshold in words."""

    @property
    def source(self) -> str:
        """Where the threshold comes from."""


def document(title: str, body: Iterable[str]) -> str:
    """Return a whole page that needs nothing but itself."""
    style, script = (files("steadygrad.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>steadygrad: {safe(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n<footer><p>What a code means: <code>steadygrad explain CODE</code></p></footer>\n"
        + f"</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def safe(text: str) -> str:
    """Return text of unknown origin as HTML that shows it."""
    return escape(plain(text))


def head(title: str, good: bool, sentence: str) -> str:
    """Return the top of a page."""
    heading = f'<h1 class="{"good" if good else "bad"}">{safe(title)}</h1>'
    return f'<header><p class="name">steadygrad</p>\n{heading}\n{paragraph(sentence)}</header>'


def paragraph(text: str) -> str:
    """Return a paragraph, or nothing for no text."""
    return f"<p>{safe(text)}</p>\n" if text else ""


def soft(text: str) -> str:
    """Return a paragraph that steps back, or nothing for no text."""
    return f'<p class="soft">{safe(text)}</p>' if text else ""


def section(title: str, *parts: str) -> str:
    """Return a section, or nothing if all its parts are empty."""
    return f"<section>\n<h2>{safe(title)}</h2>\n{''.join(parts)}\n</section>" if any(parts) else ""


def bullets(lines: Iterable[str]) -> str:
    """Return a list, or nothing for no lines."""
    items = "".join(f"<li>{safe(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def listing(introduction: str, code: str) -> str:
    """Return code as it is, or nothing for none; strings in it are written by ``repr``, which shows all they hold."""
    return f'{paragraph(introduction)}<pre tabindex="0"><code>{escape(code)}</code></pre>' if code else ""


def figures(named: Iterable[tuple[str, str]]) -> str:
    """Return key figures in large type."""
    cells = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in named)
    return f'<dl class="figures">{cells}</dl>'


def findings_list(findings: Sequence[Finding], cards: Mapping[str, Card], steps: Sequence[int] | None = None) -> str:
    """Return findings with what their codes mean; a card unfolds at the first finding of its code.

    Args:
        findings: Worst or first first; those after the first fifty are counted only.
        cards: By code.
        steps: When each was found, in a run.
    """
    shown = findings[: letter.FINDINGS_SHOWN]
    explained: set[str] = set()
    items = []
    for place, finding in enumerate(shown):
        card = None if finding.code in explained else cards.get(finding.code)
        explained.add(finding.code)
        items.append(_finding(finding, card, None if steps is None else steps[place]))
    rest = soft(letter.left_out(findings))
    return f'<ul class="findings">\n{chr(10).join(items)}\n</ul>{rest}' if items else ""


def _finding(finding: Finding, card: Card | None, step: int | None) -> str:
    when = "" if step is None else f"step {step:,} "
    layer = f" <code>{escape(layer_name(finding.layer))}</code>" if finding.layer is not None else ""
    severity = f'{when}<span class="severity">{finding.severity.label}</span>'
    evidence = ", ".join(f"{key} {number(value)}" for key, value in finding.evidence.items())
    more = ""
    if card is not None:
        words = paragraph(card.meaning) + soft(f"{card.threshold} {card.source}")
        more = f"<details><summary>{safe(finding.code)}: {safe(card.title)}</summary>{words}</details>"
    return (
        f'<li class="{finding.severity.label}"><p>{severity} <code>{safe(finding.code)}</code>{layer}</p>'
        f"{paragraph(finding.message)}{paragraph(finding.advice)}{soft(evidence)}{more}</li>"
    )


def picture(png: bytes, words: str) -> str:
    """Return a PNG picture that the page itself holds, with the words that stand for it and under it."""
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    image = f'<img src="{source}" alt="{safe(words)}">'
    return f'<figure class="sg-chart">{image}<figcaption>{safe(words)}</figcaption></figure>'


def table(sheet: Sheet) -> str:
    """Return a table; the page's script sorts it by the columns."""
    titles = "".join(
        f'<th scope="col"{_number_class(column.numeric)}>{safe(column.title)}</th>' for column in sheet.columns
    )
    body = "\n".join(_row(row, sheet) for row in sheet.rows)
    foot = f"<tfoot>{''.join(_row(row, sheet) for row in sheet.footer)}</tfoot>" if sheet.footer else ""
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>{foot}</table></div>{soft(sheet.caption)}"
    )


def _row(row: Row | Gap, sheet: Sheet) -> str:
    if isinstance(row, Gap):
        return f'<tr class="gap"><td colspan="{len(sheet.columns)}">{safe(str(row))}</td></tr>'
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
