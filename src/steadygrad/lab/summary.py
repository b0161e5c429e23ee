"""What a grid's results say: configurations over their seeds, the robustness of each value of an axis, the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from steadygrad.lab.result import Configuration, Result, Value

__all__ = ["Point", "Robustness", "article_verdict", "points", "robustness"]

NEAR = 0.05  # "near the best" is within five points of the best test score of the grid
HALF = 0.5  # a run whose training accuracy is below it has not learned
NOISE = 0.01  # a point of accuracy: what the best configurations vary by from seed to seed


@dataclass(frozen=True)
class Point:
    """A configuration with its runs over the seeds; means are over those that neither diverged nor failed.

    Attributes:
        configuration: Without the seed, and without the axes that are the same in the whole grid.
        runs: One a seed.
    """

    configuration: Configuration
    runs: tuple[Result, ...]

    def mean(self, score: str) -> float | None:
        """Return the mean of ``train``, ``validation``, ``best`` or ``test``; None unless every run came to its end."""
        values = self._values(score)
        return fmean(values) if values else None

    def spread(self, score: str) -> float | None:
        """Return the standard deviation of a score over the seeds; None where :meth:`mean` is, or of a single seed."""
        values = self._values(score)
        return stdev(values) if len(values) > 1 else None

    def _values(self, score: str) -> list[float]:
        values = [getattr(run, score) for run in self.runs if run.outcome == "done"]
        return values if len(values) == len(self.runs) and None not in values else []

    def score(self) -> float:
        """Return what configurations are chosen by: the mean validation score at the end; -1 without one."""
        found = self.mean("validation")
        return -1.0 if found is None else found


@dataclass(frozen=True)
class Robustness:
    """How the configurations with one value of an axis do.

    Attributes:
        value: The value.
        points: How many configurations there are.
        best: The one with the best validation score.
        near: How many have a test score within five points of the best of the whole grid.
        unlearned: How many end with a training score below one half, diverge or fail.
        median_train: Of those that came to their end.
        median_test: The same of the test score.
    """

    value: Value
    points: int
    best: Point
    near: int
    unlearned: int
    median_train: float | None
    median_test: float | None


def points(results: Iterable[Result]) -> list[Point]:
    """Return the configurations of a grid, runs over seeds together, best validation score first."""
    results = list(results)
    axes = dict.fromkeys(axis for result in results for axis in result.configuration)
    varied = [a for a in axes if a != "seed" and len({repr(result.configuration.get(a)) for result in results}) > 1]
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(repr([result.configuration.get(axis) for axis in varied]), []).append(result)
    made = [Point({axis: runs[0].configuration.get(axis) for axis in varied}, tuple(runs)) for runs in found.values()]
    return sorted(made, key=Point.score, reverse=True)


def robustness(found: Sequence[Point], axis: str) -> list[Robustness]:
    """Return how each value of an axis does, in the order of their medians, the best first."""
    best = max((score for point in found if (score := _test(point)) is not None), default=0.0)
    rows = []
    for value in dict.fromkeys(point.configuration.get(axis) for point in found):
        those = [point for point in found if point.configuration.get(axis) == value]
        tests = [score for point in those if (score := _test(point)) is not None]
        trains = [score for point in those if (score := point.mean("train")) is not None]
        rows.append(
            Robustness(
                value,
                len(those),
                max(those, key=Point.score),
                sum(score >= best - NEAR for score in tests),
                len(those) - sum(score >= HALF for score in trains),
                median(trains) if trains else None,
                median(tests) if tests else None,
            )
        )
    return sorted(rows, key=lambda row: row.median_test or 0.0, reverse=True)


def article_verdict(found: Sequence[Point]) -> str:
    """Judge the article's sentence that Adagrad underfits while Adam generalises; empty if it was not put to the test.

    Stated before: Adagrad underfits if its best configuration's training accuracy lies more than a point below the best
    of the other optimizers. Adam generalises if the test accuracy of its best configuration is more than a point above
    that of every other optimizer, or its gap between training and test accuracy more than a point below that of every
    other. The best configuration is chosen on the validation data.
    """
    rows = {row.value: row.best for row in robustness(found, "optimizer")}
    train = {name: point.mean("train") for name, point in rows.items()}
    test = {name: _test(point) for name, point in rows.items()}
    if not {"Adagrad", "Adam"} <= rows.keys() or None in (*train.values(), *test.values()):
        return ""
    trains, tests = ({n: v for n, v in each.items() if v is not None} for each in (train, test))
    others = [name for name in rows if name != "Adam"]
    underfits = trains["Adagrad"] < max(v for n, v in trains.items() if n != "Adagrad") - NOISE
    gap = {name: trains[name] - tests[name] for name in rows}
    ahead = all(tests["Adam"] > tests[name] + NOISE for name in others)
    closer = all(gap["Adam"] < gap[name] - NOISE for name in others)
    holds = {2: "holds", 1: "holds in part", 0: "does not hold"}[underfits + (ahead or closer)]
    seeds = max(len(point.runs) for point in found)
    return (
        f'"Adagrad underfits, Adam generalises" {holds} on this grid ({seeds} seed{"s" if seeds > 1 else ""}). '
        f"At their best: Adagrad trains to {trains['Adagrad']:.1%} and tests at {tests['Adagrad']:.1%}, "
        f"Adam to {trains['Adam']:.1%} and {tests['Adam']:.1%}; "
        f"the best test of all optimizers is {max(tests.values()):.1%}."
    )


def _test(point: Point) -> float | None:
    """Return the test score, or the validation score where there are no test data."""
    found = point.mean("test")
    return point.mean("validation") if found is None else found
