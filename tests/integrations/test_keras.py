"""Keras chooses its backend once a process, so each training runs in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def run(checkout: Path, *arguments: str, backend: str = "torch") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("clip", "accumulate", "policy"), [("0.5", "0", "float32"), ("0.5", "2", "float32"), ("0", "0", "mixed_bfloat16")]
)
def test_the_numbers_are_those_of_a_plain_loop(checkout: Path, clip: str, accumulate: str, policy: str) -> None:
    done = run(checkout, str(checkout / "tests" / "integrations" / "keras_fit.py"), clip, accumulate, policy)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["left"] == [], "the optimizer has its own methods back"
    assert [name.split("/")[-1] for name in said["layers"]] == ["first", "last"]
    np.testing.assert_allclose(said["seen"], said["truth"], rtol=1e-4 if policy == "float32" else 2e-2)
    assert (np.array(said["ratios"]) > 0).all()


def test_without_a_backend_that_can_be_imported_the_sentence_says_what_to_set(checkout: Path) -> None:
    done = run(checkout, "-c", "import steadygrad.integrations.keras", backend="tensorflow")
    assert "Set KERAS_BACKEND=torch before Keras is imported." in done.stderr
