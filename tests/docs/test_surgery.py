"""The example in ``docs/surgery.md`` runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_example_prints_its_comments(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (checkout / "docs" / "surgery.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    exec(compile(code, "docs/surgery.md", "exec"), {})
    promised = [line.removeprefix("# ") for line in code.splitlines() if line.startswith("# ")]
    assert capsys.readouterr().out.splitlines() == promised
