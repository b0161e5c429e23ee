from __future__ import annotations

from pathlib import Path

import pytest

from steadygrad.cli.main import main

SMALL = "--data digits --train 300 --widths 8 --epochs 1 --validations 2 --optimizers SGD,Adam --lrs 0.01,0.1".split()
SMALL += "--batches 100 --decays 0 --executor here".split()

FACTORY = """
import torch
from steadygrad import TrainingSetup

def setup(lr, width=4):
    x = torch.rand(40, 3)
    model = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
    sgd = lambda p: torch.optim.SGD(p, lr=lr)
    data = (x, (x.sum(1) > 1.5).long())
    return TrainingSetup(model, torch.nn.functional.cross_entropy, data, sgd, validation=data, steps=6)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def test_the_articles_grid_runs_resumes_shows_and_exports(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["lab", "mnist-grid", *SMALL, "--report", "a.html"]) == 0
    first = capsys.readouterr().out
    assert "Robustness by optimizer" in first
    assert "Results are stored in mnist-grid.sqlite" in first
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["lab", "mnist-grid", *SMALL]) == 0
    assert main(["lab", "show", "mnist-grid.sqlite", "--by", "lr", "--tensorboard", "board"]) == 0
    assert len(list((tmp_path / "board").iterdir())) == 4
    assert "Robustness by lr" in capsys.readouterr().out
    assert main(["lab", "export", "mnist-grid.sqlite", "a.csv"]) == 0
    assert "4 runs written to a.csv" in capsys.readouterr().out


def test_a_grid_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(FACTORY)
    (tmp_path / "grid.toml").write_text('factory = "train.py:setup"\nlooks = 2\n[axes]\nlr = [0.1, 0.2]\nwidth = 5\n')
    assert main(["lab", "run", "grid.toml", "--executor", "here", "--by", "lr"]) == 0
    assert "Results are stored in grid.sqlite" in capsys.readouterr().out
    (tmp_path / "grid.toml").write_text(
        'factory = "mlp"\n[axes]\ndata = "digits"\ntrain = 300\nwidths = "8"\nepochs = 1\n'
    )
    assert main(["lab", "run", "grid.toml", "--executor", "here"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mnist-grid", "--lrs", "a"], "--lrs: expected numbers separated by commas, got 'a'"),
        (["mnist-grid", "--lrs", ""], "Grid: expected at least one value for axis lr, got none"),
        (["mnist-grid", "--data", "digit"], "Did you mean 'digits'?"),
        (["mnist-grid", "--data", "digits", "--train", "300"], "training rows between the batch size, 1000"),
        (["mnist-grid", *SMALL, "--optimizers", "Adan"], "expected an optimizer out of SGD"),
        (["mnist-grid", *SMALL, "--report", "a.txt"], "--report: expected a file that ends in .html"),
        (["mnist-grid", *SMALL, "--store", "no/a.sqlite"], "unable to open database file"),
        (["mnist-grid", *SMALL, "--ray-address", "auto"], "--ray-address: expected --executor ray beside it"),
        (["show", "no.sqlite"], "no.sqlite: expected a file of results, found none"),
        (["run", "no.toml"], "no.toml: expected a grid in TOML, found no such file"),
        (["run", "bad.toml"], "bad.toml: expected a grid in TOML, got:"),
        (["run", "odd.toml"], 'odd.toml: expected factory = "FILE.py:callable"'),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("[axes\n")
    (tmp_path / "odd.toml").write_text("factor = 3\n")
    assert main(["lab", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "Traceback" not in error


def test_an_interrupted_grid_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steadygrad.cli.lab.run", interrupted)
    assert main(["lab", "mnist-grid", *SMALL]) == 130
    assert "0 runs are stored in mnist-grid.sqlite. Run the same again to resume." in capsys.readouterr().out
