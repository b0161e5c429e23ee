"""A grid of trainings for people: tables and curves of scores, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steadygrad.report.document import document, head, section, table
from steadygrad.report.panel import AFTER, Line, Style, figure, panel
from steadygrad.report.tables import Sheet

__all__ = ["curves_of_scores", "sheets_page"]

OTHER: Style = ("var(--sg-band, currentColor)", "1 3")
POINTS = 100  # many lines share a panel
Curve = Sequence[tuple[float, float]]
"""Share of the training, in [0, 1], and score."""


def curves_of_scores(panels: Mapping[str, tuple[Curve, Sequence[Curve]]]) -> str:
    """Draw one panel a title: the curve to look at, and dotted beneath it the others, on a linear axis."""
    drawn = []
    for title, (best, others) in panels.items():
        lines = [Line("other", OTHER, _thinned(curve)) for curve in others] + [Line("best", AFTER, _thinned(best))]
        drawn.append(panel(title, lines, ("start", "end of training"), linear=True))
    return figure(drawn, ["validation accuracy"], ["Solid: the best configuration; dotted: the others."])


def sheets_page(title: str, sentence: str, sections: Mapping[str, Sheet | str]) -> str:
    """Return a page of tables and figures under their headings."""
    parts = [section(name, table(item) if isinstance(item, Sheet) else item) for name, item in sections.items()]
    return document(title, [head(title, True, sentence), *parts])


def _thinned(curve: Curve) -> tuple[tuple[float, float | None, str], ...]:
    step = -(-len(curve) // POINTS) or 1
    return tuple((x, y, "") for x, y in [*curve[:-1:step], *curve[-1:]])
