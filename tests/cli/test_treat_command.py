from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steadygrad.cli.main import main
from steadygrad.doctor import load_cured
from steadygrad.training.datasets import load

QUICK = ("--workers", "1", "--trials", "2", "--steps", "30")


def test_a_cure_is_printed_saved_and_reported(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["treat", "setups.py:sick", *QUICK, "--report", "report.html", "--save", "deep/cure"]) == 0
    out, err = capsys.readouterr()
    lines = out.rstrip().splitlines()
    assert lines[:2] == [
        "Report written to report.html",
        "Cure written to deep/cure: load it with steadygrad.load_cured",
    ]
    assert "Recommended" in out
    assert lines[-2].split()[:3] == ["mean", "±", "sd"]
    assert lines[-1].startswith("accuracy: higher is better, chance 0.")
    assert err.splitlines() == [
        "training it as it is ...",
        "trying prescriptions ...",
        "training the best for longer ...",
        "proving it on fresh seeds ...",
    ]
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    from setups import sick

    cured = load_cured("deep/cure", sick())
    with torch.no_grad():
        right = cured.model.eval()(cured.train[0]).argmax(1) == cured.train[1]
    assert right.double().mean() > 0.9


def test_a_healthy_setup_needs_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["treat", "setups.py:healthy", *QUICK, "--save", "cure"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("There is no cure to save.")
    assert "Healthy: the set-up learns as it is; nothing needs to change." in out
    assert not (folder / "cure").exists()


def test_what_is_not_cured_exits_with_1(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["treat", "setups.py:nan", *QUICK]) == 1
    assert "The training data hold NaN or infinity" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("name", "verdict"), [("sick", "cured"), ("nan", "not cured"), ("talking", "healthy")])
def test_json_is_all_there_is_on_standard_output(
    folder: Path, capsys: pytest.CaptureFixture, name: str, verdict: str
) -> None:
    code = main(["treat", f"setups.py:{name}", *QUICK, "--format", "json", "--report", "report.json"])
    assert code == (verdict == "not cured")
    out = capsys.readouterr().out
    content = json.loads(out, parse_constant=pytest.fail)
    assert content["verdict"] == verdict
    assert content == json.loads((folder / "report.json").read_text())
    assert all(run["steps"] <= 30 for trial in content["trials"] for run in trial["runs"])


def test_seed_and_budget_reach_the_treatment(folder: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["treat", "setups.py:sick", "--workers", "1", "--steps", "20", "--format", "json"]
    main([*command, "--trials", "2", "--seed", "5"])
    content = json.loads(capsys.readouterr().out)
    assert [trial["runs"][0]["seed"] for trial in content["trials"][:1]] == [5]
    assert [run["seed"] for run in content["proof"]["before"]] == [6, 7, 8]
    assert len(content["trials"]) == 3
    main([*command, "--seconds", "0.001"])
    content = json.loads(capsys.readouterr().out)
    assert len(content["trials"]) == 2
    assert any(note.startswith("The time was over") for note in content["notes"])


BAD = {
    "no_optimizer": (2, "treat: expected a set-up with an optimizer, got None. Pass optimizer="),
    "as_tuple": (2, "treat: expected a set-up with an optimizer, got None."),
    "model_raises": (3, "model: forward failed on (float32[32, 8], int64[32])"),
    "empty": (3, "data: expected at least one sample, got none."),
    "no_scalar": (3, "loss: expected a scalar tensor, got float32[32]."),
    "interrupted": (130, "interrupted"),
}


@pytest.mark.parametrize(("name", "code", "words"), [(name, *rest) for name, rest in BAD.items()], ids=BAD)
def test_what_cannot_be_treated_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture, name: str, code: int, words: str
) -> None:
    assert main(["treat", f"setups.py:{name}", *QUICK]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1


PATHS = {
    ("--report", "report.txt"): "--report: expected a file that ends in .html or .json, got 'report.txt'.",
    ("--report", "gone/report.html"): "--report: expected a folder that can be written to, got 'gone'. Make it first.",
    ("--report", "folder.html"): "--report: expected a file that ends in .html or .json, got 'folder.html'.",
    ("--save", "setups.py"): "--save: expected a folder, got the file 'setups.py'. Name another one.",
}


@pytest.mark.parametrize(("option", "words"), PATHS.items(), ids=[" ".join(option) for option in PATHS])
def test_where_nothing_can_be_written_is_told_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture, option: tuple[str, str], words: str
) -> None:
    (folder / "folder.html").mkdir()
    assert main(["treat", "setups.py:raises", *option]) == 2
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.slow
def test_two_workers_do_what_one_does(folder: Path, capsys: pytest.CaptureFixture) -> None:
    results = []
    for workers in ("1", "2"):
        command = ["treat", "setups.py:talking", "--workers", workers, "--trials", "2", "--steps", "20"]
        main([*command, "--format", "json"])
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]


@pytest.mark.slow
def test_the_demo_is_cured(folder: Path, capsys: pytest.CaptureFixture) -> None:
    before = torch.get_rng_state()
    assert main(["demo", "--seed", "0"]) == 0
    assert torch.equal(torch.get_rng_state(), before)
    out = capsys.readouterr().out
    lines = out.rstrip().splitlines()
    assert out.startswith("A 30-layer sigmoid network, width 64, SGD 0.1, on scikit-learn's digits.")
    assert "Report written to steadygrad-demo.html" in lines
    assert "Cured: better on every seed, and up to the goal." in lines
    seeds = [line.split() for line in lines[-6:-3]]
    assert [row[0] for row in seeds] == ["1", "2", "3"]
    assert all(float(row[2]) < 0.3 for row in seeds)
    assert all(float(row[3]) >= 0.95 for row in seeds)
    assert lines[-2].split()[:3] == ["mean", "±", "sd"]
    assert lines[-1].startswith("accuracy: higher is better")
    page = (folder / "steadygrad-demo.html").read_text(encoding="utf-8")
    assert "Cured" in page


def test_the_demo_writes_only_pages(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "--report", "demo.json"]) == 2
    assert capsys.readouterr().err == "error: --report: expected a file that ends in .html, got 'demo.json'.\n"


def test_the_demo_sits_at_chance_for_the_given_seed() -> None:
    from steadygrad.cli.demo import sick_setup

    first, again, other = (sick_setup(seed).model[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(load("digits").train[0]) == len(sick_setup(0).train[0])
