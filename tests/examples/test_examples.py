"""Every example runs as a person would run it, and says what it is there to say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAYS = {
    "accumulation": r"20 steps of 4 parts, 20 looks",
    "compiled": r"0: output rms \d",
    "dbn": r"accuracy on held-out digits: 0\.9",
    "ddp": r"rank 1: gradient norm \S+ of its own data, \S+ after averaging",
    "fsdp2": r"2: gradient norm \S+ over all shards",
    "keras_fit": r"dense: gradient norm \S+ before clipping, \S+ after",
    "lightning_trainer": r"first look: gradient norm \S+ before clipping, 0\.1 after",
    "mixed_precision": r"skipped steps seen: 0",
    "plain_loop": r"0: update to weight ratio \d\.\de-\d\d",
    "transformers_trainer": r"first look: gradient norm \S+ before clipping, 0\.1 after",
}


def test_every_example_is_here(checkout: Path) -> None:
    assert {path.stem for path in (checkout / "examples").glob("*.py")} == set(SAYS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, checkout: Path, tmp_path: Path) -> None:
    script = checkout / "examples" / f"{name}.py"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2"] if "torchrun" in script.read_text() else []
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(SAYS[name], done.stdout), done.stdout
    assert "SteadygradWarning" not in done.stderr
