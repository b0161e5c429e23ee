"""The public names are pinned, exist and are documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import steadygrad

FRONT = {
    "Blueprint",
    "Budget",
    "Diagnosis",
    "Finding",
    "Monitor",
    "Observation",
    "Prescription",
    "Processes",
    "Remedy",
    "SteadygradError",
    "SteadygradWarning",
    "Step",
    "TrainingSetup",
    "Treatment",
    "__version__",
    "apply",
    "attach",
    "chain",
    "diagnose",
    "load_cured",
    "prescribe",
    "save_cured",
    "treat",
    "verify",
}
ROOMS = {
    "boltzmann",
    "cli",
    "diagnosis",
    "doctor",
    "errors",
    "lab",
    "integrations",
    "monitor",
    "records",
    "remedies",
    "report",
    "signals",
    "training",
}

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(steadygrad.__path__, "steadygrad.")
    if not module.name.endswith("__main__")
]


def documented(thing: object) -> bool:
    """Whether a class or function has a docstring of its own, not one that dataclass or a base class gave it."""
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return bool(text) and not text.startswith(f"{thing.__name__}(")


def test_the_front_exports_exactly_the_pinned_names() -> None:
    assert set(steadygrad.__all__) == FRONT
    assert len(steadygrad.__all__) == len(FRONT)


def test_every_package_is_known() -> None:
    assert {module.name for module in pkgutil.iter_modules(steadygrad.__path__)} - {"__main__"} == ROOMS


@pytest.mark.parametrize("module", [steadygrad, *MODULES], ids=lambda module: module.__name__)
def test_every_public_name_exists_and_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert documented(thing), f"{module.__name__}.{name} has no docstring"
