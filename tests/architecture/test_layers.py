"""Packages import only downwards; nothing is filed under a name that says nothing; no file grows too long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LINES = 400
ATTICS = {"common", "helpers", "misc", "util", "utils"}


def test_packages_import_only_from_the_layers_below(checkout: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_has_a_telling_name(checkout: Path) -> None:
    attics = [path for path in (checkout / "src").rglob("*") if path.stem.strip("_") in ATTICS]
    assert attics == []


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_no_file_is_longer_than_the_ceiling(checkout: Path, folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (checkout / folder).rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > LINES} == {}
    assert lengths, "no files seen: the test looks in the wrong place"
