"""``steadygrad dbn`` from fitting to export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from steadygrad.boltzmann import DBN, DBNClassifier
from steadygrad.cli.dbn import app, read_rows
from steadygrad.errors import DataFileError, MissingDependencyError, UsageError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_fit_score_sample_filters_export(tmp_path: Path) -> None:
    model = tmp_path / "dbn"
    quick = ("--hidden", "30,20", "--pretrain-epochs", 2, "--epochs", 5, "--save", model)
    assert "test error" in run("fit", *quick)
    assert "% of 360 rows" in run("score", model)
    page = tmp_path / "r.html"
    run("fit", *quick, "--early-stopping", "--report", page)
    shown = page.read_text(encoding="utf-8")
    for words in ("test error", "free-energy gap", "Fine-tuning: loss", "30 units of the first layer", "100 draws"):
        assert words in shown
    assert "30 filters" in run("filters", model, "--out", tmp_path / "f.png")
    run("export", model, "--out", tmp_path / "net")
    assert load_file(tmp_path / "net")["0.weight"].shape == (30, 64)
    run("fit", *quick, "--generative", "--report", page)
    assert "top: update to weight ratio" in page.read_text(encoding="utf-8")
    assert "4 samples" in run("sample", model, "--label", 3, "--count", 4, "--steps", 5, "--out", tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="--label: expected one of 0, 1"):
        run("sample", model, "--label", "x")


def test_files_without_classes_make_plain_networks(tmp_path: Path) -> None:
    rows = (np.random.default_rng(0).random((60, 9)) < 0.4).astype(np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    options = ("--data", tmp_path / "rows.npy", "--hidden", "5,4", "--pretrain-epochs", 2, "--save", tmp_path / "dbn")
    assert "nats a sample (exact)" in run("fit", *options)
    assert "nats a sample (exact)" in run("score", tmp_path / "dbn", "--data", tmp_path / "rows.npy")
    run("sample", tmp_path / "dbn", "--count", 2, "--steps", 3, "--out", tmp_path / "s.png")
    np.save(tmp_path / "rows.npy", rows[:, :7])
    run("fit", *options, "--report", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "no small square images" in page
    assert "nats a sample (exact)" in page
    with pytest.raises(UsageError, match=r"--report: expected a file that ends in .html"):
        run("fit", *options, "--report", tmp_path / "r.pdf")


def test_tables_name_their_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,kind\n1,2.5,x\n3,4,y\n")
    rows, classes, test = read_rows(str(tmp_path / "t.csv"), "kind")
    np.testing.assert_array_equal(rows, [[1, 2.5], [3, 4]])
    assert list(classes) == ["x", "y"]
    assert test is None
    with pytest.raises(UsageError, match="--label: expected one of the columns a, b, kind, got 'c'"):
        read_rows(str(tmp_path / "t.csv"), "c")
    with pytest.raises(DataFileError, match="expected rows of numbers"):
        read_rows(str(tmp_path / "none.npy"))
    with pytest.raises(UsageError, match=r"--data: expected digits, mnist, fashion-mnist or a \.npy"):
        read_rows("nothing")


@pytest.mark.slow
def test_tensorboard_shows_course_filters_and_samples(tmp_path: Path) -> None:
    board = tmp_path / "board"
    quick = ("--hidden", "30,20", "--pretrain-epochs", 3, "--epochs", 2, "--save", tmp_path / "dbn")
    assert f"tensorboard --logdir {board}" in run("fit", *quick, "--tensorboard", board).replace("\n", "")
    shown = EventAccumulator(str(board))
    shown.Reload()
    classifier = DBNClassifier.load(tmp_path / "dbn")
    for tag, records in (
        ("update_ratio/rbms_[1]", classifier.dbn_.rbms_[1].history_),
        ("loss/fine_tuning", classifier.history_),
    ):
        key = tag.partition("/")[0]
        events = [(event.step, event.value) for event in shown.Scalars(f"steadygrad/{tag}")]
        assert events == [(record["epoch"], pytest.approx(record[key], rel=1e-5)) for record in records]
    (weights,) = shown.Histograms("steadygrad/weights as pretrained/rbms_[0]")
    assert weights.histogram_value.num == 64 * 30
    (filters,) = shown.Images("steadygrad/filters")
    assert (filters.width, filters.height) == (1 + 6 * 9, 1 + 5 * 9)
    assert shown.Images("steadygrad/samples")
    with pytest.raises(UsageError, match="--tensorboard: expected a new or empty folder"):
        run("fit", *quick, "--tensorboard", board)


def test_a_missing_tensorboard_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "steadygrad\[tensorboard\]"'):
        run("fit", "--save", tmp_path / "dbn", "--tensorboard", tmp_path / "board")
    assert not (tmp_path / "dbn").exists()


@pytest.mark.parametrize("saves", [1, 3, 6])
@pytest.mark.parametrize("kind", [["--epochs", 3], ["--epochs", 3, "--generative"], ["--epochs", 0]])
def test_an_interrupted_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: list[object], saves: int
) -> None:
    quick = ("--hidden", "12,8", "--pretrain-epochs", 3, "--batch-size", 100, *kind)
    run("fit", *quick, "--save", tmp_path / "straight")
    estimator = DBN if 0 in kind else DBNClassifier
    save, path = estimator.save, tmp_path / "resumed"

    def save_and_stop(self: DBN, place: Path, note: object = None) -> None:
        nonlocal saves
        save(self, place, note)
        saves -= 1
        if saves == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(estimator, "save", save_and_stop)
    stopped = CliRunner().invoke(app, [str(part) for part in ("fit", *quick, "--save", path)])
    assert stopped.exit_code == 130
    assert "Run the same again to go on." in stopped.output.replace("\n", " ")
    assert not path.exists()
    with pytest.raises(DataFileError, match="random_state 0 there, 1 here"):
        run("fit", *quick, "--save", path, "--seed", 1)
    assert "Going on from" in run("fit", *quick, "--save", path)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "straight"]
    resumed, straight = load_file(path), load_file(tmp_path / "straight")
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
