from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadygrad.records import Observation, Run
from steadygrad.report import curves_chart, profile_chart
from steadygrad.report.axis import BOTTOM, LEFT, RIGHT, TOP, Axis

from .samples import HOSTILE, diverged, healthy, moments, network, proof, sick, stats


def parse(chart: str) -> ET.Element:
    """Return the figure as XML, whose numbers must all be finite."""
    figure = ET.fromstring(chart)
    for element in figure.iter():
        for name in ("d", "x", "y", "cx", "cy", "height"):
            assert not re.search(r"nan|inf", element.get(name, ""))
    return figure


def one_panel(signals: Sequence[float | None]) -> ET.Element:
    """Return the forward panel of a network with these signals."""
    layers = tuple(replace(stats(f"net.{i}", 1.0, 1.0), signal=value) for i, value in enumerate(signals))
    return parse(profile_chart({"now": Observation(1.0, layers, 1.0)})).findall(".//svg[@role='img']")[0]


def test_every_chart_speaks() -> None:
    figure = parse(profile_chart({"before": sick().observation, "after": healthy().observation}))
    forward, backward = figure.findall(".//svg[@role='img']")
    assert forward.findtext("title") == forward.get("aria-label") == "Signal, forward"
    assert "before: from 1 to 1.2e-10. after: from 1 to 0.561." in (forward.findtext("desc") or "")
    assert "before: from 1.2e-12 to 0.01." in (backward.findtext("desc") or "")


def test_the_guilty_layer_is_marked_by_name_where_it_stands() -> None:
    chart = profile_chart({"now": sick().observation}, guilty="net.8")
    marks = [text for text in parse(chart).iter("text") if text.text == "guilty: net.8"]
    assert [float(mark.get("x", "")) for mark in marks] == pytest.approx(
        [LEFT + 4 / 19 * (RIGHT - LEFT) + 5] * 2, abs=0.1
    )
    assert "guilty" not in profile_chart({"now": sick().observation})


def test_zero_nonfinite_and_unseen_values_interrupt_the_line() -> None:
    panel = one_panel([1.0, 0.5, 0.0, 0.4, math.nan, 0.3, None, 0.2])
    (line,) = [path.get("d", "") for path in panel.iter("path") if path.get("stroke-linecap")]
    assert line.count("M") == 4  # four stretches
    assert line.count("L") == 1  # of which one is longer than a point
    shapes = [path.get("d", "") for path in panel.iter("path")]
    assert sum(shape.endswith("z") for shape in shapes) == 1
    assert sum("l8 8" in shape for shape in shapes) == 1
    assert "1 not finite, 1 zero" in (panel.findtext("desc") or "")


def test_a_network_that_could_not_be_seen_gives_an_empty_chart() -> None:
    panel = one_panel([None, None])
    assert "nothing was measured" in (panel.findtext("desc") or "")
    assert parse(profile_chart({})) is not None
    assert parse(curves_chart({})) is not None


@given(st.lists(st.none() | st.floats(min_value=0.0) | st.just(math.nan), min_size=1, max_size=8))
def test_any_profile_can_be_drawn(signals: list[float | None]) -> None:
    panel = one_panel(signals)
    for dot in panel.iter("circle"):
        assert TOP <= float(dot.get("cy", "")) <= BOTTOM


@given(st.lists(st.floats(), max_size=8))
def test_any_loss_curve_can_be_drawn(losses: list[float]) -> None:
    parse(curves_chart({"before": [Run(0, 10, 0.5, tuple(losses))], "after": []}))


def test_the_band_holds_the_start_of_the_pass() -> None:
    _, observation = network(20)
    forward, backward = parse(profile_chart({"now": observation})).findall(".//svg[@role='img']")
    for panel, start in ((forward, 0), (backward, -1)):
        (band,) = panel.iter("rect")
        top, height = float(band.get("y", "")), float(band.get("height", ""))
        dots = [float(dot.get("cy", "")) for dot in panel.iter("circle")]
        assert dots[start] == pytest.approx(top + height / 2, abs=0.2)
        assert not top <= dots[-1 - start] <= top + height


def test_ten_thousand_layers_are_thinned_with_the_guilty_one_kept() -> None:
    _, observation = network(10_000, decay=0.999)
    layers = list(observation.layers)
    layers[5000] = replace(layers[5000], output_grad=moments(0.0))
    chart = profile_chart({"now": replace(observation, layers=tuple(layers))}, guilty=layers[5000].name)
    assert "Thinned to 400 layers a line." in chart
    assert f"{layers[5000].name}: 0 (now)" in chart
    assert len(chart) < 40_000


def test_hostile_labels_and_names_stay_text() -> None:
    _, observation = network(3)
    layers = tuple(replace(layer, name=f"{i}{HOSTILE}") for i, layer in enumerate(observation.layers))
    look = replace(observation, layers=layers)
    figure = parse(profile_chart({HOSTILE: look, "after": look}, guilty=layers[1].name))
    assert list(figure.iter("script")) == []


def test_loss_curves_span_their_own_steps_and_show_divergence() -> None:
    chart = curves_chart({"before": [diverged(0)], "after": list(proof().after)})
    (panel,) = parse(chart).findall(".//svg[@role='img']")
    lines = [path.get("d", "") for path in panel.iter("path") if path.get("stroke-linecap")]
    assert len(lines) == 4
    ends = [float(line.rpartition("L")[2].split()[0]) for line in lines]
    assert ends[1:] == [pytest.approx(RIGHT, abs=0.1)] * 3
    assert ends[0] == pytest.approx(LEFT + 2 / 3 * 40 / 600 * (RIGHT - LEFT), abs=0.1)
    assert "no longer finite" in chart
    assert "step 600" in chart


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(-12.4, 2.4, True), ["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "10⁰"]),
        (Axis(-1.0, 0.5, True), ["0.1", "0.2", "0.5", "1", "2"]),
        (Axis(-5.0, -4.0, True), ["1e-5", "2e-5", "5e-5", "1e-4"]),
        (Axis(-0.66, -0.4, True), ["0.25", "0.3", "0.35"]),
        (Axis(-1.1, 1.1, False), ["-1", "-0.5", "0", "0.5", "1"]),
    ],
)
def test_ticks_are_few_and_round(axis: Axis, labels: list[str]) -> None:
    assert [label for _, label in axis.ticks()] == labels
