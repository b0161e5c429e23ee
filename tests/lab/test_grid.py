from __future__ import annotations

import time
from itertools import islice

import pytest

from steadygrad.errors import UsageError
from steadygrad.lab import Grid, mnist_grid

from .trainings import odd, perceptron


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    grid = Grid(perceptron, {"width": [4, 5], "lr": [0.1, 0.2]})
    assert len(grid) == 4
    assert list(grid)[:2] == [{"width": 4, "lr": 0.1}, {"width": 4, "lr": 0.2}]


def test_a_million_points_are_not_made_before_they_are_asked_for() -> None:
    grid = Grid(perceptron, {"width": list(range(1000)), "lr": [i / 1e3 for i in range(1000)]})
    start = time.process_time()
    assert len(grid) == 10**6
    assert len(list(islice(grid, 3))) == 3
    assert time.process_time() - start < 1


def test_keys_depend_on_values_looks_and_factory_but_not_on_the_order_of_axes() -> None:
    grid = Grid(perceptron, {"width": [4], "lr": [0.1]})
    key = grid.key({"width": 4, "lr": 0.1})
    assert key == grid.key({"lr": 0.1, "width": 4})
    others = [
        grid.key({"width": 5, "lr": 0.1}),
        Grid(perceptron, grid.axes, looks=3).key({"width": 4, "lr": 0.1}),
        Grid(odd, {"lr": [0.1]}).key({"width": 4, "lr": 0.1}),
    ]
    assert len({key, *others}) == 4


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"lr": []}, r"^Grid: expected at least one value for axis lr, got none, so the grid has no run"),
        ({"lr": 0.1}, r"^Grid: expected a list of values for axis lr, got 0\.1\. Put it into a list"),
        ({"optimizer": "SGD"}, r"^Grid: expected a list of values for axis optimizer, got 'SGD'"),
        ({"lr": [float("nan")]}, r"^Grid: expected text, finite numbers, .* on axis lr, got nan\. Name what it"),
        ({"lr": [print]}, r"^Grid: expected text, finite numbers, .* on axis lr, got <built-in"),
        ({"lr": [0.1, 0.1]}, r"^Grid: expected each value of axis lr once, got 0\.1 twice"),
        (
            {"rate": [0.1]},
            r"^Grid: expected an axis for each .* got an unexpected keyword argument 'rate'\. Rename or add",
        ),
    ],
)
def test_a_wrong_axis_is_told(axes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Grid(perceptron, axes)


def test_looks_and_factory_are_checked() -> None:
    with pytest.raises(UsageError, match=r"^Grid: expected looks to be a whole number of at least 1, got 0"):
        Grid(perceptron, {}, looks=0)
    with pytest.raises(UsageError, match=r"^Grid: expected factory to be a function, got int"):
        Grid(3, {})
    with pytest.raises(UsageError, match="missing a required argument: 'lr'"):
        Grid(lambda lr: perceptron(lr), {})


def test_the_articles_grid_is_the_articles() -> None:
    grid = mnist_grid()
    assert len(grid) == 5 * 3 * 3 * 3 == 135
    assert grid.looks == 50 * 10
    assert len(mnist_grid(seeds=(0, 1, 2))) == 405
