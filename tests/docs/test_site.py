"""The site builds without a warning, and the Python of every page runs as written, in an empty folder, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
DOCS = Path(__file__).parents[2] / "docs"
SKETCHES = {"boltzmann.md"}  # its names stand for the reader's data
PAGES = sorted(
    {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "```python" in page.read_text(encoding="utf-8")}
    - SKETCHES
)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run_as_written(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    environment = dict(os.environ)
    if 'load("mnist")' in text:
        environment["STEADYGRAD_DATA"] = str(request.getfixturevalue("data_dir"))
    code = ""
    for block in BLOCK.finditer(text):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["code"], encoding="utf-8")
        else:
            code += block["code"]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_for_nothing_elsewhere(checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://", page)
