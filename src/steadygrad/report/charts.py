"""Which lines a chart shows: the profile over the layers, losses over the steps, the course of a watched run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from steadygrad.records import History, Moments, Observation, Run
from steadygrad.report.panel import Line, Mark, Style, figure, panel, styles
from steadygrad.report.tables import layer_name, number, plain

__all__ = ["course_chart", "curves_chart", "profile_chart"]

POINTS = 400  # a profile of more points than pixels says nothing more
COURSE_POINTS = 2000  # a course can be zoomed into
MARKS = 50
CROSS = "\N{MULTIPLICATION SIGN}"


def profile_chart(observations: Mapping[str, Observation], guilty: str | None = None) -> str:
    """Draw the forward signal and the backward gradient of each layer call, on log axes, as one HTML ``figure``.

    The band spans a hundredfold either way of where the pass starts: the first layer's signal, the output's gradient.
    Zeros stand as triangles on the floor, non-finite values as crosses at the top, and unseen layers are gaps.

    Args:
        observations: By label, at most two (before, after); each spans the width, whatever its number of layers.
        guilty: Name of the layer to mark in the first observation.
    """
    forward, backward = [], []
    for style, (label, look) in zip(styles(len(observations)), observations.items(), strict=True):
        forward.append(_profile(label, style, look, [stats.signal for stats in look.layers], guilty))
        backward.append(_profile(label, style, look, [_gradient(stats.output_grad) for stats in look.layers], guilty))
    first = next(iter(observations.values()), None)
    marks = _guilty_marks(first, guilty)
    panels = (
        panel("Signal, forward", forward, ("input", "output"), start=0, marks=marks),
        panel("Gradient rms, backward", backward, ("input", "output"), start=-1, marks=marks),
    )
    calls = f"{len(first.layers) if first else 0:,} layer calls from left to right"
    notes = [f"{calls}; shaded: within a hundredfold of where the pass starts."]
    if any(len(observation.layers) > POINTS for observation in observations.values()):
        notes.append(f"Thinned to {POINTS} layers a line.")
    values = [value for line in (*forward, *backward) for _, value, _ in line.points if value is not None]
    if 0 in values:
        notes.append("▽ exactly zero.")
    if not all(map(math.isfinite, values)):
        notes.append(f"{CROSS} not finite.")
    return figure(panels, list(observations), notes)


def curves_chart(series: Mapping[str, Sequence[Run]]) -> str:
    """Draw the training losses, one line a run, on a log axis if all are positive, as one HTML ``figure``.

    Args:
        series: Runs by label, at most two labels (before, after). Runs span their own number of steps.
    """
    longest = max((run.steps for runs in series.values() for run in runs), default=1) or 1
    lines = [
        Line(f"{label}, seed {run.seed}", style, _curve(run, longest))
        for style, (label, runs) in zip(styles(len(series)), series.items(), strict=True)
        for run in runs
    ]
    notes = ["One line a seed."]
    if not all(math.isfinite(loss) for runs in series.values() for run in runs for loss in run.losses):
        notes.append(f"{CROSS} the loss is no longer finite.")
    drawing = panel("Training loss", lines, ("step 0", f"step {longest:,}"), steps=(0, longest))
    return figure([drawing], list(series), notes)


def course_chart(history: History, alarms: Iterable[tuple[int, str]] = ()) -> str:
    """Draw loss, gradient norms, and learning rate and loss scale where they change, over the steps of a run.

    Long runs are thinned to the lowest and the highest look of each stretch, so that no spike is lost.

    Args:
        history: With one look at least.
        alarms: Steps and words of vertical marks, in order.
    """
    first, last = int(history.steps[0]), max(int(history.steps[-1]), int(history.steps[0]) + 1)
    ends = (f"step {first:,}", f"step {last:,}")
    alarms = list(alarms)
    marks = [Mark(min(max((step - first) / (last - first), 0.0), 1.0), words) for step, words in alarms[:MARKS]]
    arrived, used = styles(2)
    wanted = (
        ("Loss", (("loss", "loss", used),), False),
        ("Gradient norm", (("grad_norm", "arrived", arrived), ("grad_norm_used", "used", used)), False),
        ("Learning rate", (("lr", "learning rate", used),), True),
        ("Loss scale", (("loss_scale", "loss scale", used),), True),
    )
    counts = (history.column("grad_nonfinite"), history.column("output_nonfinite"))
    broken = np.logical_or.reduce([(count > 0).any(axis=1) for count in counts])  # elsewhere, NaN is: not seen
    panels = []
    for title, columns, only_changing in wanted:
        lines = [_course(history, broken, *column) for column in columns]
        seen = {value for line in lines for _, value, _ in line.points if value is not None}
        if len(seen) > only_changing:
            panels.append(panel(title, lines, ends, marks=marks, steps=(first, last)))
    notes = ["The gradient norm as it arrived, and as the optimizer used it (clipped, reduced)."]
    if marks:
        notes.append("Vertical lines: alarms.")
    if len(alarms) > MARKS:
        notes.append(f"Marked: the first {MARKS} of {len(alarms):,} alarms.")
    if len(history) > COURSE_POINTS:
        notes.append(f"Thinned to {COURSE_POINTS:,} of {len(history):,} looks a line, lowest and highest kept.")
    return figure(panels, ["arrived", "used"], notes)


def _course(history: History, broken: np.ndarray, name: str, label: str, style: Style) -> Line:
    values, steps = history.column(name, of="step"), history.steps
    first, span = int(steps[0]), max(int(steps[-1] - steps[0]), 1)
    rows = {*_extremes(values, COURSE_POINTS), *np.flatnonzero(broken)[:1].tolist()}
    points = []
    for row in sorted(rows):
        value = float(values[row])
        points.append(((int(steps[row]) - first) / span, None if math.isnan(value) and not broken[row] else value, ""))
    return Line(label, style, tuple(points))


def _extremes(values: np.ndarray, most: int) -> list[int]:
    """Return at most ``most`` places: the first and the last, and the lowest and the highest of each stretch."""
    if len(values) <= most:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), most // 2 - 1):
        part = values[stretch]
        if not np.isnan(part).all():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
    return sorted(kept)


def _curve(run: Run, longest: int) -> tuple[tuple[float, float | None, str], ...]:
    last = max(len(run.losses) - 1, 1)
    return tuple((i / last * run.steps / longest, loss, "") for i, loss in enumerate(run.losses))


def _profile(
    label: str, style: Style, observation: Observation, values: list[float | None], guilty: str | None
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


def _guilty_marks(observation: Observation | None, guilty: str | None) -> list[Mark]:
    if observation is None or guilty is None:
        return []
    last = max(len(observation.layers) - 1, 1)
    places = [i / last for i, stats in enumerate(observation.layers) if stats.name == guilty]
    return [Mark(places[0], layer_name(guilty, 60), f"guilty: {layer_name(guilty, 28)}")] if places else []
