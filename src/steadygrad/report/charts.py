"""Charts as SVG strings drawn by hand: no script, no request, no color that a dark page could swallow.

Colours come from the CSS custom properties ``--sg-before``, ``--sg-after``, ``--sg-band`` and ``--sg-guilty`` of the
page, with ``currentColor`` in their absence; line dashes and words say the same without color.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from steadygrad.records import Blueprint, Moments, Observation, Run
from steadygrad.report.tables import layer_name, number, plain

__all__ = ["curves_chart", "profile_chart"]

WIDTH, HEIGHT = 460, 284
LEFT, RIGHT, TOP, BOTTOM = 52, 448, 46, 246  # of the plotting area, in user units
POINTS = 400  # a line of more points than pixels says nothing more
DOTS = 60  # up to here every point gets a dot with the layer's name
BAND = 2.0  # decades either way; a guide for the eye, not a rule: thresholds live in the diagnosis
BEFORE = ("var(--sg-before, currentColor)", "5 3")  # color and dashes
AFTER = ("var(--sg-after, currentColor)", "none")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """The vertical axis from ``low`` to ``high``, which are decimal logarithms where ``log`` is true."""

    low: float
    high: float
    log: bool

    def place(self, level: float) -> float:
        """Return where ``level`` (a logarithm on a log axis) lies, cut to the plotting area."""
        share = (level - self.low) / (self.high - self.low)
        return BOTTOM - min(max(share, 0.0), 1.0) * (BOTTOM - TOP)

    def ticks(self) -> list[tuple[float, str]]:
        """Return levels and labels of three to seven ticks."""
        if not self.log:
            return [(level, number(level)) for level in _spread(self.low, self.high, 5)]
        if self.high - self.low <= 2:  # few decades: 1, 2, 5 within each
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            marks = [(e + math.log10(m), _label(m, e)) for e in decades for m in (1, 2, 5)]
            return [(level, label) for level, label in marks if self.low <= level <= self.high]
        stride = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 200) if (self.high - self.low) / n < 7)
        first, last = math.ceil(self.low / stride) * stride, math.floor(self.high)
        return [(level, "10" + str(level).translate(SUPERSCRIPTS)) for level in range(first, last + 1, stride)]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``x`` in [0, 1] and a value, each with the words shown on hovering; None is a gap."""

    label: str
    style: tuple[str, str]
    points: tuple[tuple[float, float | None, str], ...]


def profile_chart(blueprint: Blueprint, observations: Mapping[str, Observation], guilty: str | None = None) -> str:
    """Draw the forward signal and the backward gradient of each layer call, on log axes, as one HTML ``figure``.

    The band spans a hundredfold either way of where the pass starts: the first layer's signal, the output's gradient.
    Zeros stand as triangles on the floor, non-finite values as crosses at the top, and unseen layers are gaps.

    Args:
        blueprint: What the first observation looked at; says how many calls there are.
        observations: By label, at most two (before, after); each spans the width, whatever its number of layers.
        guilty: Name of the layer to mark in the first observation.
    """
    forward, backward = [], []
    for style, (label, look) in zip(_styles(len(observations)), observations.items(), strict=True):
        forward.append(_line(label, style, look, [stats.signal for stats in look.layers], guilty))
        backward.append(_line(label, style, look, [_gradient(stats.output_grad) for stats in look.layers], guilty))
    mark = _guilty_mark(next(iter(observations.values()), None), guilty)
    panels = (
        _panel("Signal, forward", forward, ("input", "output"), start=0, mark=mark),
        _panel("Gradient rms, backward", backward, ("input", "output"), start=-1, mark=mark),
    )
    calls = f"{len(blueprint.layers):,} layer calls from left to right"
    notes = [f"{calls}; shaded: within a hundredfold of where the pass starts."]
    if any(len(observation.layers) > POINTS for observation in observations.values()):
        notes.append(f"Thinned to {POINTS} layers a line.")
    values = [value for line in (*forward, *backward) for _, value, _ in line.points if value is not None]
    if 0 in values:
        notes.append("▽ exactly zero.")
    if not all(map(math.isfinite, values)):
        notes.append("\N{MULTIPLICATION SIGN} not finite.")
    return _figure(panels, list(observations), notes)


def curves_chart(series: Mapping[str, Sequence[Run]]) -> str:
    """Draw the training losses, one line a run, on a log axis if all are positive, as one HTML ``figure``.

    Args:
        series: Runs by label, at most two labels (before, after). Runs span their own number of steps.
    """
    longest = max((run.steps for runs in series.values() for run in runs), default=1) or 1
    lines = [
        Line(f"{label}, seed {run.seed}", style, _curve(run, longest))
        for style, (label, runs) in zip(_styles(len(series)), series.items(), strict=True)
        for run in runs
    ]
    notes = ["One line a seed."]
    if not all(math.isfinite(loss) for runs in series.values() for run in runs for loss in run.losses):
        notes.append("\N{MULTIPLICATION SIGN} the loss is no longer finite.")
    return _figure([_panel("Training loss", lines, ("step 0", f"step {longest:,}"))], list(series), notes)


def _curve(run: Run, longest: int) -> tuple[tuple[float, float | None, str], ...]:
    last = max(len(run.losses) - 1, 1)
    return tuple((i / last * run.steps / longest, loss, "") for i, loss in enumerate(run.losses))


def _styles(count: int) -> list[tuple[str, str]]:
    return [BEFORE, *[AFTER] * (count - 1)] if count > 1 else [AFTER] * count


def _line(
    label: str, style: tuple[str, str], observation: Observation, values: list[float | None], guilty: str | None
) -> Line:
    layers = observation.layers
    last = max(len(layers) - 1, 1)
    kept = [i for i in _thinned(len(layers)) if layers[i].name != guilty]
    kept = sorted([*kept, *(i for i, stats in enumerate(layers) if stats.name == guilty)])
    words = {i: f"{layer_name(layers[i].name, 60)}: {number(values[i])} ({plain(label, 60)})" for i in kept}
    return Line(label, style, tuple((i / last, values[i], words[i]) for i in kept))


def _gradient(moments: Moments | None) -> float | None:
    if moments is None:
        return None
    return math.nan if moments.nonfinite else moments.rms


def _thinned(count: int) -> list[int]:
    if count <= POINTS:
        return list(range(count))
    return [round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)]


def _guilty_mark(observation: Observation | None, guilty: str | None) -> tuple[float, str] | None:
    if observation is None or guilty is None:
        return None
    last = max(len(observation.layers) - 1, 1)
    places = [i / last for i, stats in enumerate(observation.layers) if stats.name == guilty]
    return (places[0], layer_name(guilty, 28)) if places else None


def _panel(
    title: str,
    lines: Sequence[Line],
    ends: tuple[str, str],
    start: int | None = None,
    mark: tuple[float, str] | None = None,
    linear: bool = False,
) -> str:
    """Draw one SVG: band, grid, guilty layer, lines. ``start`` is the point of a line that the band is laid around."""
    values = [value for line in lines for _, value, _ in line.points if value is not None and math.isfinite(value)]
    log = not linear and (start is not None or all(value > 0 for value in values))
    levels = [math.log10(value) if log else value for value in values if value > 0 or not log]
    band = None if start is None else _band(lines, start)
    axis = _axis([*levels, *(band or ())], log)
    parts = [f'<text class="sg-title" x="{LEFT}" y="18">{escape(title)}</text>']
    if band:
        top, bottom = axis.place(band[1]), axis.place(band[0])
        parts.append(
            f'<rect class="sg-band" x="{LEFT}" y="{top:.1f}" width="{RIGHT - LEFT}" height="{bottom - top:.1f}" '
            'fill="var(--sg-band, currentColor)" fill-opacity=".16"/>'
        )
    parts += _frame(axis, ends)
    if mark:
        parts.append(_mark(*mark))
    parts += [_stroke(line, axis) for line in lines]
    alternative = f"{title}. {_spoken(lines)}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" font-size="12" '
        f'fill="currentColor"><title>{escape(title)}</title><desc>{escape(alternative)}</desc>{"".join(parts)}</svg>'
    )


def _band(lines: Sequence[Line], start: int) -> tuple[float, float] | None:
    """Return the band around the last line's first (``start=0``) or last (``start=-1``) usable value."""
    for line in reversed(lines):
        usable = [value for _, value, _ in line.points if value is not None and math.isfinite(value) and value > 0]
        if usable:
            center = math.log10(usable[start])
            return center - BAND, center + BAND
    return None


def _axis(levels: Iterable[float], log: bool) -> Axis:
    levels = [min(max(level, -1e300), 1e300) for level in levels] or [0.0]  # the span must stay finite
    low, high = min(levels), max(levels)
    if log and high - low > 1.5:
        low, high = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    margin = (high - low) * 0.04 or max(0.5, abs(high) / 2)
    return Axis(low - margin, high + margin, log)


def _frame(axis: Axis, ends: tuple[str, str]) -> list[str]:
    parts = []
    for level, label in axis.ticks():
        y = axis.place(level)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="currentColor" stroke-opacity=".6"/>')
    parts.append(f'<text x="{LEFT}" y="{BOTTOM + 20}">{escape(ends[0])}</text>')
    parts.append(f'<text x="{RIGHT}" y="{BOTTOM + 20}" text-anchor="end">{escape(ends[1])}</text>')
    return parts


def _mark(x: float, name: str) -> str:
    at = LEFT + x * (RIGHT - LEFT)
    anchor, shift = ("start", 5) if x < 0.5 else ("end", -5)
    color = "var(--sg-guilty, currentColor)"
    return (
        f'<path d="M{at:.1f} {TOP - 14}V{BOTTOM}" stroke="{color}" stroke-dasharray="2 3"/>'
        f'<text class="sg-guilty" x="{at + shift:.1f}" y="{TOP - 6}" text-anchor="{anchor}" fill="{color}">'
        f"guilty: {escape(name)}</text>"
    )


def _stroke(line: Line, axis: Axis) -> str:
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
        f'stroke-dasharray="{dashes}"/>'
    )
    return (stroke if path else "") + "".join(marks)


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


def _label(mantissa: int, exponent: int) -> str:
    """Return ``mantissa * 10**exponent`` in words that fit a tick, without a number that may overflow."""
    return f"{mantissa}e{exponent}" if abs(exponent) > 2 else f"{mantissa * 10.0**exponent:g}"


def _spread(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers between ``low`` and ``high``."""
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next((unit * m for m in (1, 2, 5) if unit * m >= raw), 10 * unit)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _figure(panels: Sequence[str], labels: Sequence[str], notes: Sequence[str]) -> str:
    keys = "".join(
        f'<span class="sg-key"><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true"><path d="M0 4H28" '
        f'stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"/></svg> {escape(plain(label))}</span> '
        for label, (color, dashes) in zip(labels, _styles(len(labels)), strict=True)
        if len(labels) > 1
    )
    caption = f"{keys}{escape(' '.join(notes))}"
    drawing = f'<div class="sg-panels">{"".join(panels)}</div>'
    return f'<figure class="sg-chart">{drawing}<figcaption>{caption}</figcaption></figure>'
