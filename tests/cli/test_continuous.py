"""A check that lives in a continuous integration: annotations, SARIF, known findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steadygrad.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["check", "setups.py:sick", *arguments])
    return code, capsys.readouterr().out


def test_sarif_has_what_the_schema_requires(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--format", "sarif")
    log = json.loads(out)
    assert code == 1
    assert log["version"] == "2.1.0"
    (found,) = log["runs"]
    driver = found["tool"]["driver"]
    assert driver["name"] == "steadygrad"
    assert found["results"]
    for result in found["results"]:
        assert result["message"]["text"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "setups.py"
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])


def test_github_gets_one_command_a_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, "--format", "github")
    lines = out.strip().splitlines()
    assert lines
    assert all(
        line.startswith(("::error file=setups.py,title=SG", "::warning file=setups.py,title=SG")) for line in lines
    )


def test_known_findings_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--write-baseline", "known.json")[0] == 1
    code, out = run(capsys, "--baseline", "known.json", "--format", "json")
    assert code == 0
    assert json.loads(out)["findings"] == []
    Path("pyproject.toml").write_text('[tool.steadygrad]\nbaseline = "known.json"\n')
    assert run(capsys)[0] == 0


def test_pyproject_leaves_out_a_code_or_one_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads(run(capsys, "--format", "json")[1])["findings"]
    one = known[0]
    Path("pyproject.toml").write_text(f'[tool.steadygrad]\nignore = ["{one["code"]}:{one["layer"] or ""}"]\n')
    rest = json.loads(run(capsys, "--format", "json")[1])["findings"]
    assert rest == [finding for finding in known if (finding["code"], finding["layer"]) != (one["code"], one["layer"])]
    Path("pyproject.toml").write_text('[tool.steadygrad]\nignore = ["SG"]\n')
    assert run(capsys)[0] == 0


@pytest.mark.parametrize("table", ['select = "SG1"', "colour = 3"])
def test_settings_of_another_kind_are_told(table: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text(f"[tool.steadygrad]\n{table}\n")
    assert main(["check", "setups.py:sick"]) == 2
    assert "expected in [tool.steadygrad] lists select and ignore" in " ".join(capsys.readouterr().err.split())


def test_a_missing_baseline_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "setups.py:sick", "--baseline", "none.json"]) == 2
    assert "--baseline: expected a file of known findings" in capsys.readouterr().err


def test_a_forecast_says_what_will_become_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, "--forecast", "--format", "json")
    told = json.loads(out)["forecast"]
    assert told["prospect"] == "will fail"
    assert 0.5 < told["probability"] <= 1
    assert told["steps"] == 25
    assert told["reasons"]
