"""The README's blocks run as written, in an empty folder, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^    steadygrad (?P<arguments>(?:check|explain|treat) [^#\n]+)", re.MULTILINE)


@pytest.fixture
def folder(checkout: Path, tmp_path: Path) -> Path:
    """Return a folder that holds the README's files and the rest of its Python as ``script.py``."""
    script = ""
    for block in BLOCK.finditer((checkout / "README.md").read_text(encoding="utf-8")):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["code"], encoding="utf-8")
        else:
            script += block["code"]
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_python_runs_as_written(folder: Path) -> None:
    done = run(folder, "script.py")
    assert done.returncode == 0, done.stderr
    assert "SG101" in done.stdout
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_the_commands_run_as_written(folder: Path, checkout: Path) -> None:
    commands = COMMAND.findall((checkout / "README.md").read_text(encoding="utf-8"))
    assert [command.split()[0] for command in commands] == ["check", "explain", "treat"]
    main = "import sys; from steadygrad.cli.main import main; sys.exit(main())"
    codes = {command.split()[0]: run(folder, "-c", main, *command.split()).returncode for command in commands}
    assert codes == {"check": 1, "explain": 0, "treat": 0}
    assert (folder / "cured" / "weights.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["clipping", "lab", "monitor", "surgery"])
def test_the_blocks_of_a_page_run_as_written(page: str, checkout: Path, tmp_path: Path) -> None:
    text = (checkout / "docs" / f"{page}.md").read_text(encoding="utf-8")
    code = "".join(block["code"] for block in BLOCK.finditer(text))
    assert code
    done = run(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
