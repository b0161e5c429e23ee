"""The blocks of ``docs/boltzmann.md`` run as written, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_blocks_run_as_written(checkout: Path, tmp_path: Path) -> None:
    text = (checkout / "docs" / "boltzmann.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nats a sample (exact)" in done.stdout
    assert "'SG101', 'SG102', 'SG401'" in done.stdout
    assert re.search(r"[89]\d\.\d% right", done.stdout)
    assert (tmp_path / "dbn.safetensors").is_file()
