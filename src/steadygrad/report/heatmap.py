"""Layers by steps as one SVG: how far each value lies from the middle of all, in decades.

A cell is part of one path a level, so that the picture stays small. Colors come from ``--sg-low`` and ``--sg-high``
of the page; the values stand in the rows as text, for the page's script to read out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from steadygrad.records import History
from steadygrad.report.tables import layer_name, number

__all__ = ["heat_map"]

ROWS, COLUMNS = 48, 160
LEFT, TOP, WIDTH, ROW = 190, 44, 720, 12  # user units
LEVELS = 6  # shades either way
FEWEST_DECADES = 1.0  # a healthy run shall look quiet: no full color for a factor below ten
NAME = 30  # characters


@dataclass(frozen=True, slots=True)
class _Cells:
    """Values of shape ``(rows, columns)``: NaN not seen, inf not finite; ``steps`` has one edge more than columns.

    ``layers`` says how many layers had a value; some may be left out.
    """

    values: np.ndarray
    names: Sequence[str]
    steps: np.ndarray
    layers: int


def heat_map(history: History, statistic: str, title: str, alarms: Iterable[tuple[int, str | None, str]] = ()) -> str:
    """Draw one statistic of a run, layer by layer over the steps, as one HTML ``figure``; nothing if it was not seen.

    Args:
        history: The run; many looks share a cell, which then shows the largest, and many layers are thinned.
        statistic: A name of ``LAYER_STATISTICS``.
        title: What it is, for people.
        alarms: Step, layer and words of each; their layers stay when others are thinned, up to half of the rows.
    """
    if not np.isfinite(history.column(statistic)).any():
        return ""
    alarms = list(alarms)
    cells = _cells(history, statistic, {layer for _, layer, _ in alarms})
    usable = cells.values[np.isfinite(cells.values) & (cells.values > 0)]
    center = float(np.median(np.log10(usable))) if len(usable) else 0.0
    span = max(float(np.abs(np.log10(usable) - center).max()), FEWEST_DECADES) if len(usable) else FEWEST_DECADES
    height = TOP + ROW * len(cells.names) + 26
    parts = [f'<text class="sg-title" x="{LEFT}" y="18">{escape(title)}</text>']
    parts += [_row(place, name, cells) for place, name in enumerate(cells.names)]
    parts += _shades(_levels(cells.values, center, span))
    parts += _alarm_marks(cells, alarms)
    for at, step, anchor in ((LEFT, cells.steps[0], "start"), (LEFT + WIDTH, cells.steps[-1] - 1, "end")):
        parts.append(f'<text x="{at}" y="{height - 8}" text-anchor="{anchor}">step {step:,}</text>')
    notes = _notes(history, cells, center, span, bool(alarms))
    edges = " ".join(map(str, cells.steps.tolist()))
    words = f"<title>{escape(title)}</title><desc>{escape(notes)}</desc>"
    drawing = (
        f'<svg viewBox="0 0 {LEFT + WIDTH + 10} {height}" role="img" aria-label="{escape(title)}" class="sg-heat" '
        f'data-box="{LEFT} {TOP} {LEFT + WIDTH} {ROW}" data-edges="{edges}" font-size="10" fill="currentColor">'
        f"{words}{''.join(parts)}</svg>"
    )
    caption = f"<figcaption>{_key()}{escape(notes)}</figcaption>"
    return f'<figure class="sg-chart"><div class="sg-wide">{drawing}</div>{caption}</figure>'


def _cells(history: History, statistic: str, wanted: set[str | None]) -> _Cells:
    count = "output_nonfinite" if statistic.startswith("output") else "grad_nonfinite"
    table = np.where(history.column(count) > 0, np.inf, history.column(statistic))
    seen = np.flatnonzero(~np.isnan(table).all(axis=0))
    layers = seen[_kept(len(seen), [history.layers[k] in wanted for k in seen])]
    values = table[:, layers]
    first, last = int(history.steps[0]), int(history.steps[-1])
    edges = np.unique(np.linspace(first, last + 1, min(COLUMNS, last + 1 - first, len(history)) + 1).astype(np.int64))
    starts = np.searchsorted(history.steps, edges[:-1])
    cells = np.full((len(edges) - 1, len(layers)), np.nan)
    for column, (start, end) in enumerate(zip(starts, [*starts[1:], len(history)], strict=True)):
        # A stretch without a look shows the look before it.
        cells[column] = np.fmax.reduce(values[start:end]) if end > start else cells[column - 1]
    return _Cells(cells.T, [history.layers[k] for k in layers], edges, len(seen))


def _kept(count: int, wanted: Sequence[bool]) -> list[int]:
    """Return at most ``ROWS`` places: up to half of them wanted ones, the others spread evenly."""
    if count <= ROWS:
        return list(range(count))
    marked = [place for place in range(count) if wanted[place]][: ROWS // 2]
    return sorted({*marked, *np.linspace(0, count - 1, ROWS - len(marked)).astype(int).tolist()})


def _levels(values: np.ndarray, center: float, span: float) -> np.ndarray:
    """Return levels from -LEVELS to LEVELS; one more at the end for not finite, one below the start for not seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.rint((np.log10(np.abs(values)) - center) / span * LEVELS)
    levels = np.clip(levels, -LEVELS, LEVELS)
    levels[np.isposinf(values)] = LEVELS + 1
    return np.where(np.isnan(values), -LEVELS - 1, levels).astype(int)


def _shades(levels: np.ndarray) -> list[str]:
    """Return one path a level, whose strokes are as wide as a row."""
    width = WIDTH / levels.shape[1]
    strokes: dict[int, list[str]] = {}
    for row, line in enumerate(levels.tolist()):
        start = 0
        for column in range(1, len(line) + 1):
            if column == len(line) or line[column] != line[start]:
                at = f"M{LEFT + start * width:.1f} {TOP + (row + 0.5) * ROW:g}h{(column - start) * width:.1f}"
                strokes.setdefault(line[start], []).append(at)
                start = column
    strokes.pop(-LEVELS - 1, None)
    return [_shade(level, "".join(paths)) for level, paths in sorted(strokes.items())]


def _shade(level: int, path: str) -> str:
    color = "broken" if level > LEVELS else "high" if level > 0 else "low" if level < 0 else "even"
    opacity = 1.0 if level > LEVELS else max(abs(level), 0.4) / LEVELS  # the middle is seen too, faintly
    return f'<path class="sg-{color}" stroke-opacity="{opacity:.2f}" d="{path}"/>'


def _row(place: int, name: str, cells: _Cells) -> str:
    values = " ".join("-" if np.isnan(v) else f"{v:.3g}" for v in cells.values[place].tolist())
    y = TOP + (place + 0.5) * ROW + 3.5
    return (
        f'<text class="sg-row" x="{LEFT - 6}" y="{y:g}" text-anchor="end" data-y="{values}">'
        f"{escape(layer_name(name, NAME))}<title>{escape(layer_name(name, 80))}</title></text>"
    )


def _alarm_marks(cells: _Cells, alarms: Iterable[tuple[int, str | None, str]]) -> list[str]:
    """Return a triangle above the step of each alarm, and a ring around the cell of its layer."""
    width, parts = WIDTH / cells.values.shape[1], []
    rows = {name: place for place, name in enumerate(cells.names)}
    for step, layer, words in alarms:
        column = min(max(int(np.searchsorted(cells.steps, step, side="right")) - 1, 0), cells.values.shape[1] - 1)
        at = LEFT + (column + 0.5) * width
        shapes = f'<path d="M{at - 4:.1f} {TOP - 10}h8l-4 8z" fill="var(--sg-guilty, currentColor)"/>'
        if layer in rows:
            ring = max(width, 7.0)
            y = TOP + rows[layer] * ROW + 0.5
            shapes += (
                f'<rect x="{at - ring / 2:.1f}" y="{y}" width="{ring:.1f}" height="{ROW - 1}" fill="none" '
                'stroke="var(--sg-guilty, currentColor)" stroke-width="1.5"/>'
            )
        parts.append(f"<g>{shapes}<title>{escape(words)}</title></g>")
    return parts


def _key() -> str:
    """Return the colors from the lowest over the middle to not finite."""
    levels = (-LEVELS, -LEVELS // 2, 0, LEVELS // 2, LEVELS, LEVELS + 1)
    swatches = "".join(_shade(level, f"M{18 * place} 6h18") for place, level in enumerate(levels))
    drawing = f'<svg viewBox="0 0 108 12" width="108" height="12" aria-hidden="true">{swatches}</svg>'
    return f'<span class="sg-key">{drawing}</span> '


def _notes(history: History, cells: _Cells, center: float, span: float, alarmed: bool) -> str:
    low, middle, high = (number(10.0 ** min(level, 308.0)) for level in (center - span, center, center + span))
    notes = [f"From {low} (left color) over the median {middle} to {high}; last color: not finite; blank: not seen."]
    if alarmed:
        notes.append("Triangles: steps with an alarm; rings: its layer.")
    if len(history) > cells.values.shape[1]:
        notes.append(f"{len(history):,} looks in {cells.values.shape[1]} columns, the largest in each.")
    if cells.layers > len(cells.names):
        notes.append(f"Thinned to {len(cells.names)} of {cells.layers:,} layers.")
    return " ".join(notes)
