"""The zoo of the benchmarks: what follows from an index, and what keeps the splits apart."""

from __future__ import annotations

import pytest
from benchmarks.zoo import case, label_of
from benchmarks.zoo.cases import DATA, HELD_OUT_FAMILIES
from benchmarks.zoo.faults import FAULTS

SAMPLE = [0, 2, 8, 12, 16, 24]  # of data sets that need no files


def test_a_case_follows_from_its_index() -> None:
    for index in SAMPLE:
        one, two = case(index), case(index)
        assert (one.split, one.data, one.family, one.faults) == (two.split, two.data, two.family, two.faults)
        states = [found.setup().model.state_dict() for found in (one, two)]
        assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_the_splits_share_no_data_set_and_development_sees_no_fault_that_is_held_out() -> None:
    assert not set(DATA["development"]) & set(DATA["held-out"])
    held_out = {fault.name for fault in FAULTS if fault.held_out}
    assert held_out
    for index in range(0, 520, 2):
        found = case(index)
        assert found.split == "development"
        assert found.data in DATA["development"]
        assert found.family not in HELD_OUT_FAMILIES
        assert not held_out & set(found.faults)


@pytest.mark.parametrize(
    ("scores", "state"),
    [([0.95, 0.96, 0.99], "healthy"), ([0.95, 0.96, 0.8], "grey"), ([0.1, 0.9, 0.5], "sick"), ([-9.0] * 3, "sick")],
)
def test_labels(scores: list[float], state: str) -> None:
    assert label_of(scores, 0.0, 1.0).state == state
