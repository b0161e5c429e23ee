"""One chart as SVG drawn by hand: lines over a common axis, with words for every mark and for the whole.

Colors come from the CSS custom properties ``--sg-before``, ``--sg-after``, ``--sg-band`` and ``--sg-guilty`` of the
page, with ``currentColor`` in their absence; line dashes and words say the same without color.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from steadygrad.report.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, axis_over
from steadygrad.report.tables import number, plain

__all__ = ["Line", "Mark", "Style", "figure", "panel", "styles"]

WIDTH, HEIGHT = 460, 284
DOTS = 60  # up to here every point gets a dot with its words
BAND = 2.0  # decades either way; a guide for the eye, not a rule: thresholds live in the diagnosis
Style = tuple[str, str]  # color and dashes
BEFORE: Style = ("var(--sg-before, currentColor)", "5 3")
AFTER: Style = ("var(--sg-after, currentColor)", "none")
GUILTY = "var(--sg-guilty, currentColor)"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``x`` in [0, 1] and a value, each with the words shown on hovering; None is a gap."""

    label: str
    style: Style
    points: tuple[tuple[float, float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at ``x`` in [0, 1]; its ``words`` are shown on hovering, its ``name`` always."""

    x: float
    words: str
    name: str = ""


def styles(count: int) -> list[Style]:
    """Return the styles of ``count`` things to compare: the first before, the others after."""
    return [BEFORE, *[AFTER] * (count - 1)] if count > 1 else [AFTER] * count


def panel(
    title: str,
    lines: Sequence[Line],
    ends: tuple[str, str],
    start: int | None = None,
    marks: Sequence[Mark] = (),
    steps: tuple[int, int] | None = None,
    linear: bool = False,
) -> str:
    """Draw one SVG: band, grid, marks, lines.

    Args:
        title: What the vertical axis shows.
        lines: Drawn in order.
        ends: Words under both ends of the horizontal axis.
        start: The point of a line that the healthy band is laid around (0 or -1); such a chart has a log axis.
        marks: Vertical lines.
        steps: The steps at both ends; given, the page's script lets people read off and zoom.
        linear: Draw on a linear axis also what is positive throughout, as shares and scores are.
    """
    values = [value for line in lines for _, value, _ in line.points if value is not None and math.isfinite(value)]
    log = not linear and (start is not None or all(value > 0 for value in values))
    levels = [math.log10(value) if log else value for value in values if value > 0 or not log]
    band = None if start is None else _band(lines, start)
    axis = axis_over([*levels, *(band or ())], log)
    parts = [f'<text class="sg-title" x="{LEFT}" y="18">{escape(title)}</text>']
    if band:
        top, bottom = axis.place(band[1]), axis.place(band[0])
        parts.append(
            f'<rect class="sg-band" x="{LEFT}" y="{top:.1f}" width="{RIGHT - LEFT}" height="{bottom - top:.1f}" '
            'fill="var(--sg-band, currentColor)" fill-opacity=".16"/>'
        )
    parts += [f'<g class="sg-grid">{_grid(axis, ends)}</g>', *map(_mark, marks)]
    parts += [_stroke(line, axis, steps) for line in lines]
    box = f"{LEFT} {TOP} {RIGHT} {BOTTOM}"
    zoom = (
        f' class="sg-zoom" data-box="{box}" data-steps="{steps[0]} {steps[1]}" data-log="{int(log)}"' if steps else ""
    )
    alternative = f"{title}. {_spoken(lines)}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" font-size="12" '
        f'fill="currentColor"{zoom}><title>{escape(title)}</title><desc>{escape(alternative)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def figure(panels: Sequence[str], labels: Sequence[str], notes: Sequence[str]) -> str:
    """Return panels side by side over one caption: a key to ``labels`` where there are several, then ``notes``."""
    keys = "".join(
        f'<span class="sg-key"><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true"><path d="M0 4H28" '
        f'stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"/></svg> {escape(plain(label))}</span> '
        for label, (color, dashes) in zip(labels, styles(len(labels)), strict=True)
        if len(labels) > 1
    )
    caption = f"{keys}{escape(' '.join(notes))}"
    drawing = f'<div class="sg-panels">{"".join(panels)}</div>'
    return f'<figure class="sg-chart">{drawing}<figcaption>{caption}</figcaption></figure>'


def _band(lines: Sequence[Line], start: int) -> tuple[float, float] | None:
    """Return the band around the last line's first (``start=0``) or last (``start=-1``) usable value."""
    for line in reversed(lines):
        usable = [value for _, value, _ in line.points if value is not None and math.isfinite(value) and value > 0]
        if usable:
            center = math.log10(usable[start])
            return center - BAND, center + BAND
    return None


def _grid(axis: Axis, ends: tuple[str, str]) -> str:
    parts = []
    for level, label in axis.ticks():
        y = axis.place(level)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="currentColor" stroke-opacity=".6"/>')
    parts.append(f'<text x="{LEFT}" y="{BOTTOM + 20}">{escape(ends[0])}</text>')
    parts.append(f'<text x="{RIGHT}" y="{BOTTOM + 20}" text-anchor="end">{escape(ends[1])}</text>')
    return "".join(parts)


def _mark(mark: Mark) -> str:
    at = LEFT + mark.x * (RIGHT - LEFT)
    anchor, shift = ("start", 5) if mark.x < 0.5 else ("end", -5)
    name = (
        f'<text class="sg-guilty" x="{at + shift:.1f}" y="{TOP - 6}" text-anchor="{anchor}" fill="{GUILTY}">'
        f"{escape(mark.name)}</text>"
    )
    return (
        f'<path class="sg-mark" data-at="{mark.x:.4f}" d="M{at:.1f} {TOP - 14}V{BOTTOM}" stroke="{GUILTY}" '
        f'stroke-dasharray="2 3">{_hover(mark.words)}</path>{name if mark.name else ""}'
    )


def _stroke(line: Line, axis: Axis, steps: tuple[int, int] | None) -> str:
    color, dashes = line.style
    path, marks, pen_down = [], [], False
    for x, value, words in line.points:
        at = LEFT + x * (RIGHT - LEFT)
        if value is None:
            pen_down = False
        elif not math.isfinite(value):
            marks.append(f'<path d="M{at - 4:.1f} {TOP}l8 8m0 -8l-8 8" stroke="{color}">{_hover(words)}</path>')
            pen_down = False
        elif axis.log and value <= 0:
            triangle = f"M{at - 4:.1f} {BOTTOM - 8}h8l-4 7z"
            marks.append(f'<path d="{triangle}" fill="none" stroke="{color}">{_hover(words)}</path>')
            pen_down = False
        else:
            y = axis.place(math.log10(value) if axis.log else value)
            path.append(f"L{at:.1f} {y:.1f}" if pen_down else f"M{at:.1f} {y:.1f}h0")  # h0: a lone point is a dot
            pen_down = True
            if words and len(line.points) <= DOTS:
                marks.append(f'<circle cx="{at:.1f}" cy="{y:.1f}" r="2.5" fill="{color}">{_hover(words)}</circle>')
    stroke = (
        f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="1.6" stroke-linecap="round" '
        f'stroke-dasharray="{dashes}"{_data(line, steps) if steps else ""}/>'
    )
    if steps:  # the script draws line and marks anew, so they share a group
        return f"<g>{stroke}{''.join(marks)}</g>"
    return (stroke if path else "") + "".join(marks)


def _data(line: Line, steps: tuple[int, int]) -> str:
    """Return the points as attributes, numbers apart by spaces, for the page's script."""
    first, last = steps
    at = " ".join(f"{first + x * (last - first):.6g}" for x, _, _ in line.points)
    values = " ".join("-" if value is None else f"{value:.4g}" for _, value, _ in line.points)
    return f' data-label="{escape(plain(line.label, 60))}" data-x="{at}" data-y="{values}"'


def _hover(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def _spoken(lines: Sequence[Line]) -> str:
    """Return the chart in words: where each line starts and ends, and what is missing in between."""
    sentences = []
    for line in lines:
        seen = [value for _, value, _ in line.points if value is not None]
        odd = sum(not math.isfinite(value) for value in seen)
        zeros = sum(value == 0 for value in seen)
        ends = f"from {number(seen[0])} to {number(seen[-1])}" if seen else "nothing was measured"
        extra = "".join(f", {count} {what}" for count, what in ((odd, "not finite"), (zeros, "zero")) if count)
        sentences.append(f"{plain(line.label)}: {ends}{extra}.")
    return " ".join(sentences)
