"""Keras chooses its backend once a process, so each backend runs in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


PLAIN = {"clip": 0.5, "accumulate": 1, "policy": "float32", "scaled": False, "words": False, "warm": False}
WORDS = {"words": True, "clip": None}  # TensorFlow clips by another norm where a word comes twice
BFLOAT16 = {"policy": "mixed_bfloat16", "clip": None}


def cell(mode: str, **changes: Any) -> dict[str, Any]:
    return {"mode": mode} | PLAIN | changes


CELLS = {
    "torch": [
        cell("eager", warm=True),
        cell("eager", accumulate=2),
        cell("eager", scaled=True),
        cell("eager", **WORDS),
        cell("eager", **BFLOAT16),
    ],
    "tensorflow": [
        cell("graph", warm=True),
        cell("graph", accumulate=2),
        cell("graph", scaled=True),
        cell("graph", **WORDS),
        cell("graph", **BFLOAT16),
        cell("jit"),
        cell("jit", accumulate=2),
        cell("eager", accumulate=2),
    ],
}


def run(checkout: Path, backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(checkout / "src"), "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = os.environ | environment | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_the_numbers_are_those_of_a_plain_loop(backend: str, checkout: Path) -> None:
    script = checkout / "tests" / "integrations" / "keras_fit.py"
    done = run(checkout, backend, str(script), json.dumps(CELLS[backend]))
    assert done.returncode == 0, done.stderr
    for cell, said in zip(CELLS[backend], json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert said["left"] == [], f"{cell}: the optimizer has its own methods back"
        assert said["layers"] == ["words"] * cell["words"] + ["first", "last"], cell
        tolerance = 1e-4 if cell["policy"] == "float32" else 3e-2
        np.testing.assert_allclose(said["seen"], said["truth"], rtol=tolerance, err_msg=str(cell))
        assert (np.array(said["ratios"]) > 0).all(), cell
        np.testing.assert_allclose(said["rates"], 0.1, rtol=1e-6, err_msg=str(cell))
        assert said["steps"] == list(range(4 // cell["accumulate"])), cell
        assert said["later"] == [0, 3, 6] * cell["warm"], cell


def test_without_a_backend_that_is_watched_the_sentence_says_what_to_set(checkout: Path) -> None:
    done = run(checkout, "numpy", "-c", "import steadygrad.integrations.keras")
    assert "KERAS_BACKEND=torch before Keras is imported." in done.stderr
