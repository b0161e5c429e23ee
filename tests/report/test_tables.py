from __future__ import annotations

import math
from dataclasses import replace

import pytest

from steadygrad.report.tables import Gap, Row, layer_sheet, number, plain, proof_sheet, trial_sheet

from .samples import diverged, moments, network, proof, trials


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.12345, "0.123"),
        (-0.5, "-0.5"),
        (0.0099, "9.9e-3"),
        (999.6, "1.0e3"),
        (3.14e-300, "3.1e-300"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_number_is_short_and_keeps_its_magnitude(value: float, shown: str) -> None:
    assert number(value) == shown


def test_plain_disarms_control_and_direction_characters() -> None:
    assert plain("a\x1b[31m\u202eb\n\tc\ud800") == "a\\x1b[31m\\u202eb c\\ud800"


def test_plain_cuts_the_middle_to_the_exact_limit() -> None:
    assert plain("abcdefghij", limit=7) == "abc…hij"
    assert plain("abcdefghij", limit=10) == "abcdefghij"


def test_a_long_table_keeps_its_ends_and_the_guilty_layer_and_counts_the_rest() -> None:
    blueprint, observation = network(10_000)
    rows = layer_sheet(observation, blueprint, guilty="net.10000", limit=10).rows
    names = [row.cells[0] for row in rows if isinstance(row, Row)]
    assert names[:5] == ["net.0", "net.2", "net.4", "net.6", "net.8"]
    assert names[5] == "net.10000"
    assert names[6:] == ["net.19990", "net.19992", "net.19994", "net.19996", "net.19998"]
    assert [row.count for row in rows if isinstance(row, Gap)] == [4995, 4994]
    assert [row.cells[0] for row in rows if isinstance(row, Row) and row.marked] == ["net.10000"]


@pytest.mark.parametrize("limit", [0, 1, 19, 20])
def test_no_layer_is_lost_between_rows_and_gaps(limit: int) -> None:
    blueprint, observation = network(20)
    rows = layer_sheet(observation, blueprint, limit=limit).rows
    assert sum(row.count if isinstance(row, Gap) else 1 for row in rows) == 20
    assert sum(isinstance(row, Row) for row in rows) == limit


def test_missing_and_non_finite_measurements_are_told_apart() -> None:
    blueprint, observation = network(1)
    layer = replace(observation.layers[0], output=None, signal=math.nan, output_grad=moments(1.0, nonfinite=3))
    (row,) = layer_sheet(replace(observation, layers=(layer,)), blueprint).rows
    assert isinstance(row, Row)
    assert row.cells[2:5] == ("\N{EN DASH}", "nan", "nan/inf")


def test_trials_show_the_last_score_the_cost_and_the_reason() -> None:
    rows = [row for row in trial_sheet(trials()).rows if isinstance(row, Row)]
    assert rows[0].cells[2:] == ("0.104", "180", "stopped early: no better than chance after 100 steps")
    assert rows[1].cells[2] == "\N{EN DASH}"
    assert rows[2].cells[1:3] == ("he_initialization(gain=1.414) + relu()", "0.948")
    assert rows[3].cells[2] == "diverged"
    assert [row.marked for row in rows] == [False, False, True, False]


def test_proof_pairs_the_seeds_and_gives_mean_and_yardsticks() -> None:
    sheet = proof_sheet(proof())
    first = sheet.rows[0]
    assert isinstance(first, Row)
    assert first.cells[:4] == ("0", "300 / 600", "0.100", "0.950")
    assert sheet.footer[0].cells[2:4] == ("0.104 ± 0.004", "0.954 ± 0.004")
    assert sheet.caption == "accuracy: higher is better, chance 0.100, goal 0.930"


def test_diverged_trainings_are_counted_and_not_averaged() -> None:
    before = (diverged(0), *proof().before[1:])
    sheet = proof_sheet(replace(proof(), before=before, after=(), chance=None, goal=None))
    first = sheet.rows[0]
    assert isinstance(first, Row)
    assert first.cells[2:] == ("diverged", "\N{EN DASH}", "nan", "\N{EN DASH}")
    assert sheet.footer[0].cells[2:4] == ("1 of 3 diverged", "\N{EN DASH}")
    assert sheet.caption == "accuracy: higher is better"
