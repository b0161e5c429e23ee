from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from steadygrad.errors import DataFileError, StoreError, UnsendableError, UsageError, WorkerError
from steadygrad.lab import Grid, Result, Store, run, stored
from steadygrad.training import Processes, Serial

from .trainings import deadly_grid, odd, perceptron

GRID = Grid(perceptron, {"optimizer": ["SGD", "Adam"], "lr": [0.1, 0.2], "seed": [0, 1]}, looks=4)


def numbers(results: list[Result]) -> list[Any]:
    """Everything of results but the time they took."""
    return [(r.configuration, r.looked, r.losses, r.scores, r.train, r.test, r.outcome, r.engine) for r in results]


class Counting:
    """An executor that tells what it was given, and may do harm after some units."""

    def __init__(self, harm: list[Exception | None] | None = None) -> None:
        self.given: list[Any] = []
        self._harm = harm or []

    def map(self, function: Any, shared: Any, items: Any) -> Iterator[Any]:
        for item in items:
            self.given += item
            if self._harm and (error := self._harm.pop(0)):
                raise error
            yield function(shared, item)


def test_a_run_tells_everything() -> None:
    (result,) = run(Grid(perceptron, {"lr": [0.5], "steps": [9]}, looks=3))
    assert result.configuration == {"lr": 0.5, "steps": 9}
    assert result.looked == (3, 6, 9)
    assert len(result.losses) == len(result.scores) == 3
    assert result.validation == result.train == result.test, "all three are the same data here"
    assert result.best == max(result.scores)
    assert (result.outcome, result.engine, result.problem) == ("done", "compiled", "")


def test_looks_are_at_most_one_a_step() -> None:
    (result,) = run(Grid(perceptron, {"steps": [3]}, looks=10))
    assert result.looked == (1, 2, 3)


def test_results_come_in_the_grids_order_and_do_not_depend_on_the_grouping() -> None:
    before = torch.get_rng_state()
    first, second = run(GRID, together=1), run(GRID, together=8)
    assert [result.configuration for result in first] == list(GRID)
    assert numbers(first) == numbers(second)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_done_twice_and_what_is_missing_is_done(tmp_path: Path) -> None:
    path, counting, seen = tmp_path / "a.sqlite", Counting(), []
    whole = run(GRID)
    with pytest.raises(KeyboardInterrupt):
        run(GRID, path, Counting([None, KeyboardInterrupt()]), together=3)
    with Store(path) as store:
        assert numbers(list(stored(GRID, store))) == numbers(whole[:3])
    assert numbers(run(GRID, path, counting, lambda *now: seen.append(now), together=3)) == numbers(whole)
    assert counting.given == list(GRID)[3:]
    assert seen == [(3, 8), (6, 8), (8, 8)]
    counting = Counting()
    assert numbers(run(GRID, path, counting)) == numbers(whole)
    assert counting.given == []


def test_a_larger_grid_takes_what_a_smaller_one_stored(tmp_path: Path) -> None:
    path, counting = tmp_path / "a.sqlite", Counting()
    run(Grid(perceptron, {"lr": [0.1, 0.2]}), path)
    run(Grid(perceptron, {"lr": [0.1, 0.2, 0.3]}), path, counting)
    assert counting.given == [{"lr": 0.3}]


def test_a_worker_that_dies_is_replaced_and_its_unit_done_again() -> None:
    counting = Counting([None, WorkerError("died"), None, WorkerError("died"), WorkerError("died"), None])
    assert numbers(run(GRID, executor=counting, together=2)) == numbers(run(GRID))


def test_workers_that_only_die_end_the_run_and_results_stay(tmp_path: Path) -> None:
    deaths = Counting([None] + [WorkerError("Processes: a worker process died.")] * 3)
    with pytest.raises(WorkerError, match="a worker process died"):
        run(GRID, tmp_path / "a.sqlite", deaths, together=2)
    assert len(Store(tmp_path / "a.sqlite")) == 2


def test_what_cannot_be_sent_is_trained_here(caplog: pytest.LogCaptureFixture) -> None:
    assert len(run(GRID, executor=Counting([UnsendableError("TypeError: cannot pickle a lock")]))) == 8
    assert "cannot be sent to another one (TypeError: cannot pickle a lock)" in caplog.text


def test_a_run_that_fails_is_a_result_and_missing_data_end_the_grid(tmp_path: Path) -> None:
    results = run(Grid(perceptron, {"fails": ["no such thing", ""]}))
    assert [(result.outcome, result.problem) for result in results] == [
        ("failed", "RuntimeError: no such thing"),
        ("done", ""),
    ]
    with pytest.raises(DataFileError, match=r"^images\.gz: expected this file, got none"):
        run(Grid(perceptron, {"fails": ["", "usage"]}), tmp_path / "a.sqlite", together=1)
    assert len(Store(tmp_path / "a.sqlite")) == 1


def test_a_full_disk_ends_the_grid_and_results_stay(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.sqlite")
    run(Grid(perceptron, {"lr": [0.1]}), store)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    grid = Grid(perceptron, {"lr": [i / 100 for i in range(1, 31)]}, looks=8)
    with pytest.raises(StoreError, match="full"):
        run(grid, store)
    assert len(store) >= 1


def test_divergence_is_recorded() -> None:
    calm, wild = run(Grid(perceptron, {"lr": [0.1, 1e38], "steps": [20]}, looks=5))
    assert (calm.outcome, wild.outcome) == ("done", "diverged")
    assert len(wild.looked) < 5
    assert wild.train is wild.test is wild.validation is None


def test_what_only_the_plain_loop_can_train_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    together = run(Grid(odd, {"lr": [0.1, 0.2]}, looks=2))
    assert {result.engine for result in together} == {"plain"}
    assert "2 runs are trained one by one: " in caplog.text
    assert numbers(together) == numbers(run(Grid(odd, {"lr": [0.1, 0.2]}, looks=2), together=1))


def test_a_factory_has_to_return_a_setup() -> None:
    def wrong() -> int:
        return 3

    with pytest.raises(UsageError, match=r"^Grid: expected the factory to return a TrainingSetup, .* got int"):
        run(Grid(wrong, {}))
    with pytest.raises(UsageError, match=r"^run: expected together to be at least 1, got 0"):
        run(GRID, together=0)
    with pytest.raises(UsageError, match=r"^Grid: expected whole numbers on axis seed, got 'a'"):
        run(Grid(perceptron, {"seed": ["a"]}))


@pytest.mark.slow
def test_processes_give_the_same_and_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    grid = deadly_grid(killed)
    with Store(tmp_path / "a.sqlite") as store:
        results = run(grid, store, Processes(2), together=2)
        assert len(store) == 8, "every unit is there once"
    assert killed.exists()
    assert numbers(results) == numbers(run(grid, executor=Serial()))


def test_a_sink_is_given_what_is_stored_and_then_each_unit_as_it_ends() -> None:
    first = Grid(perceptron, {"lr": [0.1]}, looks=1)
    whole = Grid(perceptron, {"lr": [0.1, 0.2, 0.3]}, looks=1)
    given: list[tuple[list[float], int]] = []

    def sink(results: Sequence[Result]) -> None:
        given.append(([result.configuration["lr"] for result in results], len(store)))

    with Store() as store:
        run(first, store)
        run(whole, store, together=1, sink=sink)
    assert given == [([0.1], 1), ([0.2], 2), ([0.3], 3)]
