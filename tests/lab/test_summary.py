from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from steadygrad.errors import MissingDependencyError, StoreError, UsageError
from steadygrad.lab import Result, export
from steadygrad.lab.sheets import grid_page, points_sheet, robustness_sheet
from steadygrad.lab.summary import article_verdict, points, robustness
from steadygrad.lab.tensorboard import EventFiles


def result(train: float, test: float, outcome: str = "done", **configuration: object) -> Result:
    done = outcome == "done"
    return Result(
        configuration,
        looked=(1, 2),
        losses=(1.0, 0.5),
        scores=(test / 2, test),
        train=train if done else None,
        test=test if done else None,
        diverged=outcome == "diverged",
        problem="RuntimeError: [red]no[/red]" if outcome == "failed" else "",
    )


def article(adagrad: tuple[float, float], adam: tuple[float, float], sgd: tuple[float, float]) -> str:
    runs = {"Adagrad": adagrad, "Adam": adam, "SGD": sgd}
    return article_verdict(points(result(*scores, optimizer=name, data="mnist") for name, scores in runs.items()))


def test_a_point_is_a_configuration_over_its_seeds_the_best_first() -> None:
    runs = [result(0.8, 0.6, lr=0.1, seed=0), result(1.0, 0.8, lr=0.1, seed=1), result(0.9, 0.9, lr=0.2, seed=0)]
    best, other = points(runs)
    assert best.configuration == {"lr": 0.2}
    assert other.mean("train") == pytest.approx(0.9)
    assert other.mean("test") == pytest.approx(0.7)
    assert other.spread("test") == pytest.approx(0.02**0.5)
    assert best.spread("test") is None
    assert points_sheet([other]).rows[0].cells[-2] == "70.0 ± 14.1"


def test_a_point_with_a_run_that_diverged_has_no_mean_and_comes_last() -> None:
    runs = [
        result(0.8, 0.6, lr=0.1, seed=0),
        result(0, 0, "diverged", lr=0.1, seed=1),
        result(0.1, 0.1, lr=0.2, seed=0),
    ]
    assert [point.configuration["lr"] for point in points(runs)] == [0.2, 0.1]
    assert points(runs)[1].mean("test") is None


def test_robustness_counts_what_is_near_the_best_and_what_has_not_learned() -> None:
    runs = [
        result(0.99, 0.95, optimizer="A", lr=1),
        result(0.4, 0.91, optimizer="A", lr=2),
        result(0, 0, "diverged", optimizer="A", lr=3),
        result(0.99, 0.89, optimizer="B", lr=1),
    ]
    first, second = robustness(points(runs), "optimizer")
    assert (first.value, first.points, first.near, first.unlearned) == ("A", 3, 2, 2)
    assert first.median_test == pytest.approx(0.93)
    assert first.best.configuration["lr"] == 1
    assert (second.value, second.near, second.unlearned) == ("B", 0, 0)


@pytest.mark.parametrize(
    ("adagrad", "adam", "sgd", "words"),
    [
        ((0.80, 0.79), (0.99, 0.97), (0.99, 0.95), " holds on"),
        ((1.00, 0.95), (1.00, 0.955), (1.00, 0.95), "does not hold"),
        ((0.80, 0.79), (0.99, 0.95), (0.99, 0.95), "holds in part"),
        ((1.00, 0.95), (0.97, 0.95), (1.00, 0.95), "holds in part"),
    ],
    ids=["both", "neither", "underfits alone", "smaller gap alone"],
)
def test_the_articles_sentence_is_judged(adagrad: tuple, adam: tuple, sgd: tuple, words: str) -> None:
    assert words in article(adagrad, adam, sgd)


def test_no_verdict_without_both_optimizers() -> None:
    assert article_verdict(points([result(1, 1, optimizer="Adam"), result(1, 1, optimizer="SGD")])) == ""


def test_sheets_and_page_hold_what_was_found_and_no_markup_of_strangers() -> None:
    runs = [result(0.9, 0.8, optimizer="Adam", lr=x / 100) for x in range(1, 30)]
    runs += [result(0, 0, "failed", optimizer="<b>", lr=0.1)]
    found = points(runs)
    sheet = points_sheet(found, limit=5)
    assert sheet.rows[0].cells == ("Adam", "0.01", "90.0", "80.0", "80.0", "80.0", "1 done")
    assert sheet.rows[-1].count == 25
    assert "RuntimeError: [red]no[/red]" in points_sheet(found, limit=100).rows[-1].cells[-1]
    assert len(robustness_sheet(robustness(found, "optimizer"), "optimizer").rows) == 2
    page = grid_page(found, "optimizer")
    assert page.count("<svg") >= 2
    assert "<b>" not in page


def test_a_grid_of_one_point_has_a_table() -> None:
    assert points_sheet(points([result(0.9, 0.8, lr=0.1)])).rows[0].cells == (
        "all",
        "90.0",
        "80.0",
        "80.0",
        "80.0",
        "1 done",
    )


RUNS = [result(0.9, 0.8, lr=0.1, name="a"), result(0, 0, "diverged", lr=1, name=None)]


def test_an_export_is_a_row_a_run(tmp_path: Path) -> None:
    export(RUNS, tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["outcome"] for row in rows] == ["done", "diverged"]
    assert json.loads(rows[0]["scores"]) == [0.4, 0.8]
    export(RUNS, tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["lr"] == 0.1
    assert lines[0]["test"] == 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl"]


def test_an_export_to_parquet(tmp_path: Path) -> None:
    export([*RUNS, result(0.9, 0.8, lr="text", name="b")], tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["lr"] == ["0.1", "1", "text"], "an axis of several kinds is text"
    assert table["scores"][0] == [0.4, 0.8]


def test_what_cannot_be_exported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^export: expected a file that ends in \.csv, \.jsonl or \.parquet"):
        export(RUNS, tmp_path / "a.txt")
    with pytest.raises(StoreError, match="cannot be written"):
        export(RUNS, tmp_path / "no" / "a.csv")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "steadygrad\[pandas\]"'):
        export(RUNS, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_each_run_with_its_hyperparameters(tmp_path: Path) -> None:
    done = Result({"lr": 0.1, "name": "<a/b>"}, (5, 10), (2.0, 1.0), (0.5, 0.75), train=0.9, test=0.8)
    failed = Result({"lr": 9.0, "name": None}, (5,), (math.inf,), (-math.inf,), diverged=True)
    board = EventFiles(tmp_path / "board")
    board([done])
    board([failed])
    folders = sorted((tmp_path / "board").iterdir())
    assert [folder.name for folder in folders] == ["00000 lr=0.1,name=_a_b_", "00001 lr=9.0,name=None"]
    first, second = (EventAccumulator(str(folder)).Reload() for folder in folders)
    assert [(e.step, e.value) for e in first.Scalars("steadygrad/loss")] == [(5, 2.0), (10, 1.0)]
    assert [e.value for e in first.Scalars("steadygrad/validation")] == [0.5, 0.75]
    assert [round(e.value, 6) for e in first.Scalars("steadygrad/final/test")] == [0.8]
    assert second.Tags()["scalars"] == []
    for shown, outcome in ((first, "done"), (second, "diverged")):
        content = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert all(word in content for word in (b"lr", b"name", outcome.encode()))
