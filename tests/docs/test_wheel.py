"""Wheel and source archive build, and what they install works on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archives(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix: path for path in folder.iterdir()}


def test_both_hold_the_page_and_the_source_archive_its_tests(archives: dict[str, Path]) -> None:
    with zipfile.ZipFile(archives[".whl"]) as wheel:
        inside = set(wheel.namelist())
    assert {"steadygrad/report/page.css", "steadygrad/report/page.js", "steadygrad/py.typed"} <= inside
    assert not [name for name in inside if name.startswith(("tests", "docs"))]
    with tarfile.open(archives[".gz"]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"tests/conftest.py", "docs/index.md", "examples/plain_loop.py", "mkdocs.yml", "README.md"} <= names


def test_the_wheel_runs_in_a_clean_environment_on_the_core_dependencies(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    """The environment sees the installed core dependencies, none of the optional ones, and no source tree."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(archives[".whl"])]
    subprocess.run(install, check=True)
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(site=SITE))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for arguments in (["--version"], ["explain", "SG101"], ["check", "sick.py:setup", "--report", "page.html"]):
        (tmp_path / "sick.py").write_text(SICK)
        command = [str(python.parent / "steadygrad"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == (arguments[0] == "check"), done.stderr
    assert (tmp_path / "page.html").is_file()


SITE = str(Path(pytest.__file__).parents[1])
BLOCK = """
import sys
sys.path.append({site!r})
for name in "accelerate hypothesis keras lightning mkdocs pandas playwright pytest tensorboard transformers".split():
    sys.modules[name] = None
"""
SICK = """
import torch
from torch import nn

def setup():
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    x = torch.randn(64, 8)
    return nn.Sequential(*layers, nn.Linear(8, 2)), (x, (x[:, 0] > 0).long()), nn.functional.cross_entropy
"""
