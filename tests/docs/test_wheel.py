"""Wheel and source archive build, and what they install works on its own."""

from __future__ import annotations

import os
import shutil
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
    archives: dict[str, Path], checkout: Path, tmp_path: Path
) -> None:
    python = tmp_path / "env" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    install(python, archives[".whl"], checkout / "constraints.txt")
    found = run(python, "-c", f"from importlib.util import find_spec; print(*filter(find_spec, {OPTIONAL}))")
    assert found.stdout.split() == [], "none of the optional packages is here"
    (tmp_path / "sick.py").write_text(SICK)
    checked = run(python.with_name("steadygrad"), "check", "sick.py:setup", "--report", "page.html")
    assert checked.returncode == 1, checked.stderr
    demo = run(python.with_name("steadygrad"), "demo")
    assert demo.returncode == 0, demo.stderr
    assert "Cured: better on every seed, and up to the goal." in demo.stdout
    assert {path.name for path in tmp_path.glob("*.html")} == {"page.html", "steadygrad-demo.html"}


def install(python: Path, wheel: Path, constraints: Path) -> None:
    """Install with uv where there is one, which links what is on this machine already; with pip elsewhere."""
    command, environment = [str(python), "-m", "pip"], dict(os.environ)
    if (uv := shutil.which("uv")) is not None:  # it does not read pip's settings
        links = subprocess.run([*command, "config", "get", "global.find-links"], capture_output=True, text=True).stdout
        links = environment.get("PIP_FIND_LINKS") or links.strip()
        environment = environment | {"VIRTUAL_ENV": str(python.parents[1]), "UV_FIND_LINKS": ",".join(links.split())}
        command = [uv, "pip"]
    subprocess.run([*command, "install", "--quiet", "--constraint", constraints, wheel], env=environment, check=True)


OPTIONAL = "accelerate keras lightning numba pandas ray tensorboard tensorflow transformers wandb pytest".split()
SICK = """
import torch
from torch import nn

def setup():
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    x = torch.randn(64, 8)
    return nn.Sequential(*layers, nn.Linear(8, 2)), (x, (x[:, 0] > 0).long()), nn.functional.cross_entropy
"""
