from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from steadygrad import __version__
from steadygrad.cli import main as module
from steadygrad.cli.main import main
from steadygrad.diagnosis import RULES

COMMANDS = set(get_command(module.app).commands)


def plain(text: str) -> str:
    """Return text without boxes and in one line."""
    return " ".join(re.sub(r"[│─╭╮╰╯]", " ", text).split())


def test_help_lists_the_commands(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"\b{command}\b", out) for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(capsys: pytest.CaptureFixture, command: str) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: steadygrad" in capsys.readouterr().out


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert "Usage: steadygrad" in out + err
    assert "error: Usage" not in err


def test_the_version_is_told(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"steadygrad {__version__}\n"


def test_the_package_runs_as_a_module(checkout: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-m", "steadygrad", "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"steadygrad {__version__}\n"


WRONG = {
    ("chek",): "No such command 'chek'",
    ("check",): "Missing argument 'FILE.py:CALLABLE'",
    ("check", "a.py:b", "--selct", "SG1"): "No such option: --selct",
    ("check", "a.py:b", "--format", "yaml"): "Invalid value for '--format'",
    ("check", "a.py:b", "--fail-on", "always"): "Invalid value for '--fail-on'",
    ("check", "a.py:b", "c.py:d"): "Got unexpected extra argument",
    ("treat", "a.py:b", "--trials", "0"): "Invalid value for '--trials'",
    ("treat", "a.py:b", "--steps", "x"): "Invalid value for '--steps'",
    ("treat", "a.py:b", "--workers", "0"): "Invalid value for '--workers'",
    ("treat", "a.py:b", "--seed", "-1"): "Invalid value for '--seed'",
    ("treat", "a.py:b", "--seed", "9" * 30): "Invalid value for '--seed'",
    ("treat", "a.py:b", "--seconds", "0"): "Budget: expected seconds above 0 and finite, got 0.0",
    ("treat", "a.py:b", "--seconds", "nan"): "Budget: expected seconds above 0 and finite, got nan",
    ("explain",): "Missing argument 'code'",
    ("explain", "SG999"): "expected a rule code, got 'SG999'",
    ("explain", "vanishing"): "expected a rule code, got 'vanishing'",
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.items(), ids=[" ".join(arguments) for arguments in WRONG])
def test_a_wrong_command_line_is_one_sentence(
    capsys: pytest.CaptureFixture, arguments: tuple[str, ...], words: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(capsys: pytest.CaptureFixture, code: str) -> None:
    assert main(["explain", code.lower()]) == 0
    out = plain(capsys.readouterr().out)
    rule = RULES[code]
    assert out.startswith(f"{code} {rule.title}")
    for part in (rule.meaning, rule.threshold, rule.source, rule.advice):
        assert plain(part) in out


def test_rules_lists_every_rule(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(RULES)


def test_an_interruption_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupt(code: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steadygrad.cli.explain.rule_of", interrupt)
    assert main(["explain", "SG101"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_fault_of_our_own_shows_where_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("steadygrad.cli.explain.rule_of", lambda code: 1 / 0)
    assert main(["explain", "SG101"]) == module.FAULT == 70
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("error: steadygrad itself failed with ZeroDivisionError. Please report it")


def test_user_text_is_not_markup(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "odd.py").write_text("def setup(): raise ValueError('[red]no[/red] [/nonsense]')\n")
    assert main(["check", "odd.py:setup"]) == 3
    assert "[red]no[/red] [/nonsense]" in capsys.readouterr().err


def test_odd_layer_names_pass(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "odd.py").write_text(
        "from setups import *\n"
        "def setup():\n"
        "    model = nn.Sequential()\n"
        "    model.add_module('[bold]\\x1b[31m\\ud800', network()[0])\n"
        "    return make(model)\n"
    )
    assert main(["check", "odd.py:setup"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["check", "odd.py:setup", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["blueprint"]["layers"][0]["name"] == "[bold]\x1b[31m\ud800"
