"""The vertical axis of a chart: where a value stands, and which round numbers are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from steadygrad.report.tables import number

__all__ = ["BOTTOM", "LEFT", "RIGHT", "TOP", "Axis", "axis_over"]

LEFT, RIGHT, TOP, BOTTOM = 52, 448, 46, 246  # of the plotting area, in user units
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
        """Return levels and labels of two to seven ticks."""
        if not self.log:
            return [(level, number(level)) for level in _spread(self.low, self.high, 5)]
        if self.high - self.low <= 2:  # few decades: 1, 2, 5 within each
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            marks = [(e + math.log10(m), _label(m, e)) for e in decades for m in (1, 2, 5)]
            seen = [(level, label) for level, label in marks if self.low <= level <= self.high]
            if len(seen) > 1 or abs(self.high) > 300:
                return seen
            return [(math.log10(value), number(value)) for value in _spread(10**self.low, 10**self.high, 4)]
        stride = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 200) if (self.high - self.low) / n < 7)
        first, last = math.ceil(self.low / stride) * stride, math.floor(self.high)
        return [(level, "10" + str(level).translate(SUPERSCRIPTS)) for level in range(first, last + 1, stride)]


def axis_over(levels: Iterable[float], log: bool) -> Axis:
    """Return an axis that holds all ``levels``, which are decimal logarithms where ``log`` is true."""
    levels = [min(max(level, -1e300), 1e300) for level in levels] or [0.0]  # the span must stay finite
    low, high = min(levels), max(levels)
    if log and high - low > 1.5:
        low, high = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    margin = (high - low) * 0.04 or max(0.5, abs(high) / 2)
    return Axis(low - margin, high + margin, log)


def _label(mantissa: int, exponent: int) -> str:
    """Return ``mantissa * 10**exponent`` in words that fit a tick, without a number that may overflow."""
    return f"{mantissa}e{exponent}" if abs(exponent) > 2 else f"{mantissa * 10.0**exponent:g}"


def _spread(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers between ``low`` and ``high``."""
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next((unit * m for m in (1, 2, 5) if unit * m >= raw), 10 * unit)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
