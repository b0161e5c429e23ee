from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steadygrad.cli.main import main

GOOD = {
    "healthy": 0,
    "as_tuple": 0,
    "no_optimizer": 0,
    "talking": 0,
    "sick": 1,
    "nan": 1,
}


@pytest.mark.parametrize(("name", "code"), GOOD.items())
def test_a_setup_that_runs_is_checked(folder: Path, capsys: pytest.CaptureFixture, name: str, code: int) -> None:
    assert main(["check", f"setups.py:{name}"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert ("What to do" in out) == (code == 1)
    assert "layer" in out


BAD = {
    "raises": (3, "setups.py:raises: the callable failed with RuntimeError: boom (line 40)"),
    "exits": (3, "setups.py:exits: the callable failed with SystemExit: 4 (line 42)"),
    "model_raises": (3, "model: forward failed on (float32[32, 8], int64[32]): RuntimeError: mat1 and mat2"),
    "empty": (3, "data: expected at least one sample, got none."),
    "one_row": (3, "model: forward failed on (float32[1, 8], int64[1]): ValueError: Expected more than 1 value"),
    "integers": (3, "model: forward failed on (int64[32, 8], int64[32]): RuntimeError: mat1 and mat2 must have"),
    "ragged": (3, "data: expected tensors or arrays of equal length, got lengths 240, 60."),
    "generator": (3, "data: expected at least one batch, got nothing."),
    "no_scalar": (3, "loss: expected a scalar tensor, got float32[32]."),
    "no_parameters": (3, "model: expected a model with parameters, got one without."),
    "instance": (2, "TrainingSetup: expected optimizer to be a function of the parameters, got a SGD instance."),
    "number": (2, "setups.py:number: expected a TrainingSetup or a tuple (model, batch, loss), got int."),
    "interrupted": (130, "interrupted"),
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("name", "code", "words"), [(name, *rest) for name, rest in BAD.items()], ids=BAD)
def test_a_setup_that_does_not_run_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture, name: str, code: int, words: str, form: str
) -> None:
    assert main(["check", f"setups.py:{name}", "--format", form]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1


def test_findings_can_be_selected_and_ignored(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "setups.py:nan", "--select", "SG1"]) == 0
    assert main(["check", "setups.py:nan", "--select", "SG1,sg8"]) == 1
    assert main(["check", "setups.py:nan", "--select", "SG1", "--select", "SG801"]) == 1
    assert main(["check", "setups.py:nan", "--ignore", "SG801"]) == 0
    assert "SG801" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_a_code_that_does_not_exist_is_told(folder: Path, capsys: pytest.CaptureFixture, option: str) -> None:
    assert main(["check", "setups.py:healthy", option, "SG108"]) == 2
    assert "expected a rule code, got 'SG108'. Did you mean SG" in capsys.readouterr().err


@pytest.mark.parametrize(("fail_on", "code"), [("note", 1), ("warning", 1), ("error", 1), ("never", 0)])
def test_the_severity_that_fails_can_be_chosen(folder: Path, fail_on: str, code: int) -> None:
    assert main(["check", "setups.py:nan", "--fail-on", fail_on]) == code


@pytest.mark.parametrize("name", ["healthy", "nan", "sick", "talking"])
def test_json_is_all_there_is_on_standard_output(folder: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    code = main(["check", f"setups.py:{name}", "--format", "json"])
    out, err = capsys.readouterr()
    content = json.loads(out, parse_constant=pytest.fail)
    assert content["healthy"] == (code == 0)
    assert content["blueprint"]["layers"]
    assert len(content["observation"]["layers"]) == len(content["blueprint"]["layers"])
    assert [finding["code"] for finding in content["findings"]] == sorted(f["code"] for f in content["findings"])
    assert ("hello from the model" in err) == (name == "talking")


def test_json_names_the_guilty_layer(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "setups.py:sick", "--format", "json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["guilty"] in {layer["name"] for layer in content["blueprint"]["layers"]}
    assert 0 < content["confidence"] <= 1


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "cuda:x"])
def test_a_device_that_does_not_exist_is_told(folder: Path, capsys: pytest.CaptureFixture, device: str) -> None:
    assert main(["check", "setups.py:healthy", "--device", device]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: --device: expected a device of this machine, got '{device}': ")
    assert err.count("\n") == 1


def test_a_device_that_exists_is_used(folder: Path) -> None:
    assert main(["check", "setups.py:healthy", "--device", "cpu"]) == 0


def test_a_traceback_is_shown_on_demand(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "setups.py:raises", "--traceback"]) == 3
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert 'raise RuntimeError("boom")' in err
    assert err.splitlines()[-1].startswith("error: setups.py:raises")


def run(folder: Path, checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    known["PYTHONPATH"] = str(checkout / "src")
    code = "import sys; from steadygrad.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=known | environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_pipes_and_no_color_get_no_escape_codes(folder: Path, checkout: Path) -> None:
    plain = run(folder, checkout, "check", "setups.py:sick")
    assert plain.returncode == 1
    assert "\x1b" not in plain.stdout + plain.stderr
    forced = run(folder, checkout, "check", "setups.py:sick", FORCE_COLOR="1")
    assert "\x1b[" in forced.stdout
    quiet = run(folder, checkout, "check", "setups.py:sick", FORCE_COLOR="1", NO_COLOR="1")
    assert not any(f"\x1b[{color}" in quiet.stdout for color in ("31", "1;31", "32", "33"))


@pytest.mark.slow
def test_an_ascii_terminal_is_no_obstacle(folder: Path, checkout: Path) -> None:
    done = run(folder, checkout, "check", "setups.py:sick", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.slow
def test_the_exit_code_reaches_the_shell(folder: Path, checkout: Path) -> None:
    assert run(folder, checkout, "check", "setups.py:raises").returncode == 3
    assert run(folder, checkout, "check", "setups.py").returncode == 2
