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


def run(checkout: Path, backend: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(checkout / "src"), "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = os.environ | environment | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


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


SICK = {
    "deep sigmoid": {"SG101", "SG102"},
    "double softmax": {"SG601"},
    "scores as probabilities": {"SG601"},
    "softmax over one unit": {"SG602", "SG604"},
    "unscaled": {"SG802"},
}


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_sick_models_are_found_and_healthy_ones_left_alone(backend: str, checkout: Path) -> None:
    done = run(checkout, backend, str(checkout / "tests" / "integrations" / "keras_check.py"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for name, case in said.items():
        assert case["same"], f"{name}: weights, states, optimizer and layers are as before"
        assert SICK[name] <= set(case["codes"]) if name in SICK else case["codes"] == [], (name, case["codes"])
        for seen in ("grads", "steps"):
            measured, true = zip(*case.get(seen, [(1.0, 1.0)]), strict=True)
            np.testing.assert_allclose(measured, true, rtol=1e-4, err_msg=f"{name}: {seen}")
    assert said["residual"]["layers"] == [
        ["below", "linear", []],
        ["below:relu", "activation", [0]],
        ["batch_normalization", "normalization", [1]],
        ["dropout", "other", [2]],
        ["above", "linear", [3]],
        ["leaky_re_lu", "activation", [4]],
        ["head", "linear", [2, 5]],
    ]
    assert said["residual"]["fans"][-1] == 16
    assert "sin" in said["subclass"]["functions"]
    assert [role for _, role, _ in said["sequence"]["layers"]] == ["embedding", "recurrent", "linear", "activation"]
    assert [role for _, role, _ in said["frozen"]["layers"]] == ["linear", "activation"] * 3 + ["linear"]
    assert said["attention"]["layers"][0][1] == "attention"
    assert said["picture"]["fans"][0] == 9


CHECKED = """
import keras
import numpy as np

def net():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="softmax")])
    x = np.random.default_rng(0).normal(size=(32, 8))
    model.compile("adam", "binary_crossentropy")
    return model, (x, x[:, :1] > 0)

def raw():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)]), (np.ones((4, 8)), np.ones((4, 1)))

def wrong():
    return net()[0], 1, 2
"""
COMMANDS = {
    ("check", "net", "--report", "page.html", "--ignore", "SG1"): (1, "SG602"),
    ("check", "net", "--forecast"): (2, "--forecast: expected a PyTorch model, got a Keras model."),
    ("check", "raw"): (3, "keras: expected a model compiled with an optimizer and a loss."),
    ("check", "wrong"): (2, "Return (model, (x, y))"),
    ("treat", "net"): (2, "`steadygrad check` judges Keras models; only PyTorch models are treated."),
}


def test_the_commands_take_a_compiled_model(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CHECKED)
    calls = [[command, f"net.py:{name}", *options] for command, name, *options in COMMANDS]
    code = f"from steadygrad.cli.main import main\nprint([main(call) for call in {calls}])"
    done = run(checkout, "tensorflow", "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == str([code for code, _ in COMMANDS.values()]), done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert all(words in said for _, words in COMMANDS.values()), said
    assert "SG602" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_tensorflow_is_not_imported_for_another_backend(checkout: Path) -> None:
    code = "import sys, steadygrad.integrations.keras; sys.exit('tensorflow' in sys.modules)"
    assert run(checkout, "torch", "-c", code).returncode == 0


def test_without_a_backend_that_is_watched_the_sentence_says_what_to_set(checkout: Path) -> None:
    done = run(checkout, "numpy", "-c", "import steadygrad.integrations.keras")
    assert "KERAS_BACKEND=torch before Keras is imported." in done.stderr
