"""The articles' programs run corrected, and their faults are caught by what the page of limits says."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.articles import backpropagation_by_hand, dbn_with_clipping, linear_network_with_clipping
from experiments.articles.faults import FAULTS, Fault, table

from steadygrad.training.datasets import load


@pytest.mark.parametrize("sizes", [(10, 1), (10, 20, 1), (10, 20, 20, 20, 3)])
def test_gradients_by_hand_are_those_of_autograd(sizes: tuple[int, ...]) -> None:
    assert backpropagation_by_hand.largest_difference(sizes) < 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_clipping_saves_the_linear_network_from_outliers(seed: int) -> None:
    unclipped, clipped = (linear_network_with_clipping.error(max_norm, seed) for max_norm in (None, 10.0))
    assert not unclipped < 10  # it may be nan
    assert clipped < 0.2


@pytest.mark.slow
def test_pretraining_and_not_clipping_makes_the_deep_belief_network_learn() -> None:
    data = load("digits")
    clipped, _ = dbn_with_clipping.run(data, pretrained=False, max_norm=1.0)
    pretrained, _ = dbn_with_clipping.run(data, pretrained=True, max_norm=1.0)
    assert clipped < 0.3
    assert pretrained > 0.8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")
def test_the_keras_network_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    from experiments.articles import keras_network

    assert keras_network.accuracy(epochs=8) > 0.3  # chance is 0.1


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_each_fault_is_caught_by_what_is_said_to_catch_it(fault: Fault) -> None:
    found = fault.program()
    assert fault.code in found if fault.code else not found


def test_the_page_of_limits_names_them_all(checkout: Path) -> None:
    assert table() in (checkout / "docs" / "limits.md").read_text(encoding="utf-8")
