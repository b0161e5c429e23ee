"""A grid's summary as tables and as a page."""

from __future__ import annotations

from collections.abc import Sequence

from steadygrad.lab.result import Value
from steadygrad.lab.summary import Point, Robustness, article_verdict, robustness
from steadygrad.report.grid import curves_of_scores, sheets_page
from steadygrad.report.tables import Column, Gap, Row, Sheet, plain

__all__ = ["grid_page", "points_sheet", "robustness_sheet"]

SHOWN = 20
SCORES = ("train", "validation", "best", "test")


def points_sheet(found: Sequence[Point], limit: int = SHOWN) -> Sheet:
    """Return the configurations, best first: means over the seeds of the scores in percent."""
    axes = list(found[0].configuration) if found else []
    rows: list[Row | Gap] = [_row(point, axes) for point in found[:limit]]
    if len(found) > limit:
        rows.append(Gap(len(found) - limit))
    columns = [Column(plain(axis, 40)) for axis in axes or ["grid"]]
    columns += [Column(title, numeric=True) for title in SCORES]
    caption = "scores in %, means over the seeds ± standard deviation. best: of all looks at the validation data"
    return Sheet((*columns, Column("runs")), tuple(rows), caption=caption)


def robustness_sheet(rows: Sequence[Robustness], axis: str) -> Sheet:
    """Return one row a value of the axis, the best median first."""
    titles = ("train", "test", "median train", "median test", "near best", "unlearned")
    columns = (Column(plain(axis, 40)), Column("best at"), *(Column(title, numeric=True) for title in titles))
    cells = [
        Row(
            (
                _word(row.value),
                ", ".join(f"{a} {_word(v)}" for a, v in row.best.configuration.items() if a != axis),
                *(_score(row.best, score) for score in ("train", "test")),
                _percent(row.median_train),
                _percent(row.median_test),
                f"{row.near}/{row.points}",
                f"{row.unlearned}/{row.points}",
            )
        )
        for row in rows
    ]
    caption = (
        "best at: chosen on the validation data. near best: test within 5 points of the grid's best. "
        "unlearned: train below 50 %, diverged or failed"
    )
    return Sheet(columns, tuple(cells), caption=caption)


def grid_page(found: Sequence[Point], by: str) -> str:
    """Return a page: verdict, robustness and curves by the values of an axis, all configurations."""
    sections: dict[str, Sheet | str] = {}
    if any(by in point.configuration for point in found):
        rows = robustness(found, by)
        sections[f"Robustness by {by}"] = robustness_sheet(rows, by)
        sections["Validation accuracy"] = curves_of_scores(
            {_word(row.value): (_curve(row.best), _others(found, row, by)) for row in rows}
        )
    sections["Configurations"] = points_sheet(found, limit=1000)
    return sheets_page("A grid of trainings", article_verdict(found), sections)


def _others(found: Sequence[Point], row: Robustness, by: str) -> list[list[tuple[float, float]]]:
    return [_curve(p) for p in found if p.configuration.get(by) == row.value and p is not row.best]


def _curve(point: Point) -> list[tuple[float, float]]:
    """Return the scores of the first seed over the share of the training."""
    run = point.runs[0]
    return [(step / run.looked[-1], score) for step, score in zip(run.looked, run.scores, strict=False)]


def _row(point: Point, axes: Sequence[str]) -> Row:
    words = [_word(point.configuration.get(axis)) for axis in axes] or ["all"]
    scores = [_score(point, score) for score in SCORES]
    outcomes = [run.outcome for run in point.runs]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes))
    problems = dict.fromkeys(run.problem for run in point.runs if run.problem)
    return Row((*words, *scores, ": ".join([counts, *(plain(problem, 200) for problem in problems)])))


def _word(value: Value) -> str:
    return plain(str(value), 60)


def _score(point: Point, score: str) -> str:
    """Return the mean over the seeds, of the test score with the spread."""
    spread = point.spread(score) if score == "test" else None
    return _percent(point.mean(score)) + ("" if spread is None else f" ± {100 * spread:.1f}")


def _percent(score: float | None) -> str:
    return "\N{EN DASH}" if score is None else f"{100 * score:.1f}"
