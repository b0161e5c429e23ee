"""What the command line prints, word by word.

After a change that is meant, write the files anew with ``STEADYGRAD_GOLDEN=write pytest tests/cli/test_golden.py`` and
read the difference in review.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steadygrad.cli.main import main

GOLDEN = Path(__file__).parents[1] / "golden"

CASES = {
    "check_healthy.txt": ("check", "setups.py:healthy"),
    "check_sick.txt": ("check", "setups.py:sick"),
    "explain_SG101.txt": ("explain", "SG101"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_output_is_as_reviewed(folder: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    main(CASES[name])
    printed = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    if os.environ.get("STEADYGRAD_GOLDEN") == "write":
        (GOLDEN / name).write_text(printed, encoding="utf-8")
    assert printed == (GOLDEN / name).read_text(encoding="utf-8")
