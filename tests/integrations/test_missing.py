"""Without the extra, the one thing that is said is how to get it."""

from __future__ import annotations

import importlib
import sys

import pytest

from steadygrad.errors import MissingDependencyError


@pytest.mark.parametrize("package", ["keras", "lightning", "transformers"])
def test_a_missing_package_gives_the_line_that_installs_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"steadygrad.integrations.{package}", raising=False)
    with pytest.raises(MissingDependencyError, match=rf'pip install "steadygrad\[{package}\]"'):
        importlib.import_module(f"steadygrad.integrations.{package}")
