from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from steadygrad.records import Part, Severity, Step, Verdict
from steadygrad.report.text import diagnosis_text, findings_list, layer_table, treatment_text

from .samples import CURE, finding, healthy, hostile, network, proof, sick, trials


def shown(renderable: RenderableType, width: int = 100, color: bool = False) -> str:
    """Return what a console of this width prints; without color, as through a pipe."""
    file = StringIO()
    Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None).print(renderable)
    return file.getvalue()


def test_the_diagnosis_names_the_guilty_layer_and_marks_its_row_without_color() -> None:
    text = shown(diagnosis_text(sick()))
    assert text.startswith(
        "3 findings: 1 error, 1 warning, 1 note\nThe trouble starts at net.8, which alone explains 82%"
    )
    assert [line.split()[1] for line in text.splitlines() if line.startswith(">  ")] == ["net.8"]
    assert "> guilty layer" in text
    for word in ("SG101", "SG401", "SG803", "What to do: Drop it.", "Not seen", "its inside was not looked into"):
        assert word in text


def test_a_healthy_network_says_so_and_marks_nothing() -> None:
    text = shown(diagnosis_text(healthy()))
    assert text.startswith("Healthy: no findings\n")
    assert ">" not in text
    assert "Findings" not in text
    note = replace(healthy(), findings=(finding(severity=Severity.NOTE),))
    assert shown(diagnosis_text(note)).startswith("Healthy: 1 note, no warning\n")


def test_hostile_names_print_as_they_are_spelt() -> None:
    text = shown(diagnosis_text(hostile()), width=200, color=True)
    assert "\x1b[31m" + "\u202e" not in text
    assert "\u202e" not in text
    assert text.count('[bold red]\\x1b[31m\\u202e&"\\ud800') >= 4
    text.encode("utf-8")  # no lone surrogate came through


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    letter = treatment_text(sick(), trials(), proof(), Verdict.CURED, CURE, ["Stopped by the clock."])
    for renderable in (letter, diagnosis_text(sick()), diagnosis_text(hostile())):
        assert max(map(len, shown(renderable, width).splitlines())) <= width


def test_a_narrow_console_never_cuts_digits_silently() -> None:
    table = shown(layer_table(*reversed(network(20))), width=50)
    full = {cell for line in shown(layer_table(*reversed(network(20)))).splitlines() for cell in line.split()}
    numbers = [cell for line in table.splitlines()[5:] for cell in line.split() if cell[0].isdigit()]
    assert numbers
    assert all(cell in full or "…" in cell for cell in numbers if "." in cell)


def test_ten_thousand_layers_make_a_short_table() -> None:
    text = shown(diagnosis_text(sick(10_000)))
    assert len(text.splitlines()) < 80
    assert "… 9,960 rows left" in text


def test_more_findings_than_fit_are_counted() -> None:
    text = shown(findings_list([finding(layer=f"net.{i}") for i in range(53)]))
    assert "net.49" in text
    assert "net.50" not in text
    assert "… 3 findings left out." in text


def test_the_letter_runs_from_found_to_before_and_after() -> None:
    parts = [Part(Step("residual"), 0.9, 0.4, 25), Part(Step("dropout", {"rate": 0.1}), 0.9, 0.9, 25, dropped=True)]
    notes, doubts = ["Stopped by the clock."], ["The forecast was unsure."]
    text = shown(treatment_text(sick(), trials(), proof(), Verdict.CURED, CURE, notes, parts, doubts))
    headings = ("Found", "Tried", "Recommended", "What mattered", "Notes", "What remains unsure", "Before and after")
    places = [text.splitlines().index(heading) for heading in headings]
    assert places == sorted(places)
    assert "4 prescriptions tried, 700 optimizer steps in all." in text
    assert "- he_initialization(gain=1.414) (answers SG101)" in text
    assert "- without residual(): 0.400 in place of 0.900 after 25 steps" in text
    assert "- without dropout(rate=0.1): 0.900 in place of 0.900 after 25 steps: not needed, left out" in text
    assert "Cured: better on every seed, and up to the goal." in text
    assert text.splitlines()[-1].startswith("accuracy: higher is better, chance 0.100, goal 0.930")


def test_the_letter_without_trials_or_proof_claims_nothing() -> None:
    text = shown(treatment_text(sick(), [], None, Verdict.NOT_CURED, None))
    assert "Nothing was tried." in text
    assert "Leave the set-up as it is." in text
    assert "nothing is proven" in text.splitlines()[-1]
    assert "Notes" not in text


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_sentence(verdict: Verdict) -> None:
    text = shown(treatment_text(healthy(), [], None, verdict, None))
    assert f"\n{verdict.value.capitalize()}: " in text


def test_color_is_left_out_under_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in shown(diagnosis_text(sick()), color=True)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[1;31m" in shown(diagnosis_text(sick()), color=True)
