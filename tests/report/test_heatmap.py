from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steadygrad.records import History
from steadygrad.report import heat_map
from steadygrad.report.heatmap import COLUMNS, LEFT, ROW, ROWS, TOP, WIDTH

from .samples import history


def record(rows: list[list[float]]) -> History:
    """Return a history of these looks, each with one value a layer; inf counts as not finite."""
    made = History([f"layer{k}" for k in range(len(rows[0]))])
    for step, row in enumerate(rows):
        values = np.array(row)
        broken = np.where(np.isinf(values), 1.0, 0.0)
        made.append(step, {}, {"grad_rms": np.where(broken > 0, math.nan, values), "grad_nonfinite": broken})
    return made


def color(figure: ET.Element, row: int, column: int, columns: int) -> tuple[str, float] | None:
    """Return class and opacity of what is painted in the middle of a cell."""
    width = WIDTH / columns
    at, y = LEFT + (column + 0.5) * width, TOP + (row + 0.5) * ROW
    for path in figure.iter("path"):
        for x, height, run in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", path.get("d", "")):
            if float(height) == y and float(x) <= at < float(x) + float(run):
                return path.get("class", ""), float(path.get("stroke-opacity", ""))
    return None


def test_a_cell_is_colored_by_its_distance_from_the_median_in_decades() -> None:
    figure = ET.fromstring(
        heat_map(record([[1e-6, 1.0, 1e6], [1e-3, 1.0, math.inf], [0.0, 1.0, math.nan]]), "grad_rms", "x")
    )
    assert color(figure, 0, 0, 3) == ("sg-low", 1.0)
    assert color(figure, 0, 1, 3) == ("sg-low", 0.5)
    assert color(figure, 0, 2, 3) == ("sg-low", 1.0), "zero is as low as can be"
    assert color(figure, 1, 1, 3) == ("sg-even", 0.07)
    assert color(figure, 2, 0, 3) == ("sg-high", 1.0)
    assert color(figure, 2, 1, 3) == ("sg-broken", 1.0)
    assert color(figure, 2, 2, 3) is None, "not seen"


def test_a_quiet_run_looks_quiet() -> None:
    figure = ET.fromstring(heat_map(record([[1.0, 1.1, 0.9]] * 3), "grad_rms", "x"))
    assert {color(figure, row, 0, 3) for row in range(3)} == {("sg-even", 0.07)}


def test_the_largest_look_of_a_cell_is_kept_and_a_gap_shows_the_look_before() -> None:
    run = History(["fc"])
    for step in [*range(0, 10_000, 10), 20_000]:
        run.append(step, {}, {"grad_rms": [7.0 if step == 5_000 else 1.0], "grad_nonfinite": [0.0]})
    (row,) = [text for text in ET.fromstring(heat_map(run, "grad_rms", "x")).iter("text") if text.get("data-y")]
    values = row.get("data-y", "").split(" ")
    assert len(values) == COLUMNS
    assert values.count("7") == 1
    assert set(values) == {"1", "7"}


def test_of_many_layers_those_with_alarms_stay() -> None:
    deep = history(1000, 3)
    figure = ET.fromstring(heat_map(deep, "grad_rms", "x", [(10, "net.1502", "an alarm")]))
    names = [text.findtext("title") for text in figure.iter("text") if text.get("data-y")]
    assert len(names) <= ROWS
    assert "net.1502" in names
    assert len(list(figure.iter("rect"))) == 1


def test_what_was_never_seen_has_no_map_and_no_row() -> None:
    assert heat_map(history(), "dead_fraction", "x") == ""
    figure = ET.fromstring(heat_map(record([[1.0, math.nan]]), "grad_rms", "x"))
    assert [text.findtext("title") for text in figure.iter("text") if text.get("data-y")] == ["layer0"]


@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_numbers_can_be_drawn(rows: list[list[float]]) -> None:
    drawn = heat_map(record(rows), "grad_rms", "x")
    assert not drawn or ET.fromstring(drawn) is not None
