"""``import steadygrad`` loads torch and numpy, and nothing that a script would have to wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAVY = {
    "hypothesis",
    "joblib",
    "llvmlite",
    "keras",
    "lightning",
    "matplotlib",
    "numba",
    "pandas",
    "pooch",
    "pytest",
    "ray",
    "requests",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tqdm",
    "transformers",
    "typer",
}


def test_importing_loads_nothing_heavier_than_torch(checkout: Path) -> None:
    # What torch itself loads is not ours to answer for.
    code = "import sys, torch; before = set(sys.modules); import steadygrad; print(*set(sys.modules) - before)"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "steadygrad" in loaded
    assert loaded & HEAVY == set()
    assert "torch._dynamo" not in done.stdout.split()
