"""The example in ``docs/depth.md`` runs, and its set-up learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from steadygrad.training import Training


def test_the_example_learns(checkout: Path) -> None:
    text = (checkout / "docs" / "depth.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], "docs/depth.md", "exec"), names)
    training = Training(names["ready"], seed=0)
    training.advance(10)
    assert training.losses[-1] < 0.7 * training.losses[0]
