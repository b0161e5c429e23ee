"""Models and optimizers by the names under which a monitor shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from steadygrad.errors import UsageError

__all__ = ["by_name", "innermost"]


def by_name(given: Any, kind: type, what: str) -> dict[str, Any]:
    """Return what was given by name: that of a dict, else of the class; ``""`` if it is one alone.

    Raises:
        UsageError: If something given is of another type.
    """
    if isinstance(given, kind):
        return {"": given}
    values = (
        list(given.values()) if isinstance(given, Mapping) else list(given) if isinstance(given, Iterable) else [given]
    )
    for value in values:
        if not isinstance(value, kind):
            raise UsageError(f"Monitor: expected {what} to be of type {kind.__name__}, got {type(value).__name__}.")
    if len(values) == 1:
        return {"": values[0]}
    if isinstance(given, Mapping):
        return dict(given)
    names = [type(value).__name__ for value in values]
    return {
        name if names.count(name) == 1 else f"{name}{index}": value
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    }


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that makes the steps; Accelerate and Fabric wrap it."""
    inner = getattr(optimizer, "optimizer", None)
    return innermost(inner) if isinstance(inner, Optimizer) else optimizer
