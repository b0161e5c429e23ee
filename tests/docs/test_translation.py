"""The Chinese README says what the English one says: the same code, commands and links."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_translation_has_the_same_code_commands_and_links(checkout: Path) -> None:
    english, chinese = ((checkout / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    for pattern in (r"```python\n.*?```", r"(?m)^    [^\n]*$", r"(?m)^#+ "):
        assert re.findall(pattern, chinese, re.DOTALL) == re.findall(pattern, english, re.DOTALL)
    links = [re.findall(r"\]\((docs/[^)]+)\)", text) for text in (english, chinese)]
    assert sorted(links[0]) == sorted(links[1])
