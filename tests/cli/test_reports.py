"""``--report`` of check, watch and show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from steadygrad import Monitor
from steadygrad.cli.main import main
from steadygrad.monitor import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A watched run whose last gradient is not finite."""
    folder = RunFolder(tmp_path / "run")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1, on_alarm=lambda finding: None, sinks=[folder.log]) as monitor:
        for step in range(4):
            loss = model(torch.ones(8, 4)).square().mean() * (float("inf") if step == 3 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    folder.finish(monitor, "finished")
    return folder.folder


SCRIPT = """
import torch
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
"""


def test_check_writes_its_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "setups.py:sick", "--report", "out.html"]) == 1
    assert "<h1" in (folder / "out.html").read_text(encoding="utf-8")
    assert main(["check", "setups.py:sick", "--report", "out.pdf"]) == 2
    assert "expected a file that ends in .html" in capsys.readouterr().err


def test_show_writes_the_page_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = run.parent / "page.html"
    assert main(["show", str(run), "--report", str(page)]) == 0
    first = page.read_bytes()
    assert b"SG20" in first
    assert b"sg-heat" in first
    assert main(["show", str(run), "--report", str(page)]) == 0
    assert page.read_bytes() == first


def test_a_run_that_was_killed_has_a_page_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "run.json").unlink()
    assert main(["show", str(run), "--report", str(run / "page.html")]) == 0
    assert "killed" in (run / "page.html").read_text(encoding="utf-8")


def test_foreign_findings_are_refused_in_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"event":"finding","step":3,"code":"X","message":"","advice":""}\n')
    assert main(["show", str(run), "--report", str(run / "page.html")]) == 2
    assert "expected findings as steadygrad watch logs them" in capsys.readouterr().err


def test_watch_writes_the_page_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.setattr("sys.argv", ["steadygrad"])
    Path("train.py").write_text(SCRIPT)
    assert main(["watch", "train.py", "--every", "1", "--out", "run", "--report", "run.html"]) == 0
    assert "Course" in Path("run.html").read_text(encoding="utf-8")
