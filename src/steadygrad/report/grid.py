"""A grid of trainings for people: tables and curves of scores, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steadygrad.report.charts import AFTER, POINTS, Line, _figure, _panel
from steadygrad.report.page import _document, _head, _section, _table
from steadygrad.report.tables import Sheet

__all__ = ["curves_of_scores", "sheets_page"]

OTHER = ("var(--sg-band, currentColor)", "1 3")
Curve = Sequence[tuple[float, float]]
"""Share of the training, in [0, 1], and score."""


def curves_of_scores(panels: Mapping[str, tuple[Curve, Sequence[Curve]]]) -> str:
    """Draw one panel a title: the curve to look at, and dotted beneath it the others, on a linear axis."""
    drawn = []
    for title, (best, others) in panels.items():
        lines = [Line("other", OTHER, _thinned(curve)) for curve in others] + [Line("best", AFTER, _thinned(best))]
        drawn.append(_panel(title, lines, ("start", "end of training"), linear=True))
    return _figure(drawn, ["validation accuracy"], ["Solid: the best configuration; dotted: the others."])


def sheets_page(title: str, sentence: str, sections: Mapping[str, Sheet | str]) -> str:
    """Return a page of tables and figures under their headings."""
    parts = [_section(name, _table(item) if isinstance(item, Sheet) else item) for name, item in sections.items()]
    return _document(title, [_head(title, True, sentence), *parts])


def _thinned(curve: Curve) -> tuple[tuple[float, float | None, str], ...]:
    step = -(-len(curve) // (POINTS // 4)) or 1  # many lines share a panel
    return tuple((x, y, "") for x, y in [*curve[:-1:step], *curve[-1:]])
