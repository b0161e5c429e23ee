"""A grid of trainings as data: axes, and a function from one value of each to a set-up."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from steadygrad.errors import UsageError
from steadygrad.lab.result import Configuration, Value
from steadygrad.training import Data, TrainingSetup

__all__ = ["Factory", "Grid"]

Factory = Callable[..., TrainingSetup | tuple[TrainingSetup, Data]]
"""Called with one value an axis, by name; returns a set-up, or a set-up and test data for a last score."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of some axes; nothing is made before it is asked for.

    The axis ``seed``, 0 where there is none, seeds the random state in which the factory is called, the order of the
    data and all that is random in the model. The factory need not take it.

    Runs that follow each other are trained as one stack where they can be: put axes that change the shape of the
    network first.

    Attributes:
        factory: See :data:`Factory`.
        axes: Values by axis: text, whole or real numbers, true or false, none.
        looks: How often in a training it is scored, evenly spaced, the last time at its end.
        name: Names the factory in the store. By default its module, name and a hash of its source text, so that results
            of a changed factory are not taken for those of the old; what the factory calls is not seen.

    Raises:
        UsageError: If an axis is empty, holds a value twice or of another kind, or the factory does not take it.
    """

    factory: Factory
    axes: Mapping[str, Sequence[Value]]
    looks: int = 10
    name: str = field(default="")

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise UsageError(f"Grid: expected factory to be a function, got {type(self.factory).__name__}.")
        if not isinstance(self.looks, int) or self.looks < 1:
            raise UsageError(f"Grid: expected looks to be a whole number of at least 1, got {self.looks!r}.")
        for axis, values in self.axes.items():
            _check_axis(axis, values)
        try:
            inspect.signature(self.factory).bind(**{axis: None for axis in self.axes if self.passes(axis)})
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Grid: expected an axis for each parameter of the factory without a default, and no others: {error}. "
                "Rename or add axes, or give the factory parameters of these names."
            ) from None
        object.__setattr__(self, "name", self.name or _name(self.factory))

    def passes(self, axis: str) -> bool:
        """Whether the factory is called with an axis; it need not take the seed."""
        parameters = inspect.signature(self.factory).parameters
        return axis != "seed" or axis in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def __iter__(self) -> Iterator[Configuration]:
        """Yield the configurations, the last axis changing fastest."""
        for values in product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def key(self, configuration: Configuration) -> str:
        """Return the hash that a configuration's result is stored under; the order of the axes does not matter."""
        identity = {"factory": self.name, "looks": self.looks, "configuration": dict(configuration)}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _check_axis(axis: str, values: Sequence[Value]) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"Grid: expected a list of values for axis {axis}, got {values!r}. Put it into a list.")
    if not values:
        raise UsageError(f"Grid: expected at least one value for axis {axis}, got none, so the grid has no run.")
    for value in values:
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(
                f"Grid: expected text, finite numbers, true, false or none on axis {axis}, got {value!r}. "
                "Name what it stands for and let the factory look it up."
            )
    twice = [value for value, count in Counter(map(repr, values)).items() if count > 1]
    if twice:
        raise UsageError(f"Grid: expected each value of axis {axis} once, got {', '.join(twice)} twice.")


def _name(factory: Any) -> str:
    place = f"{factory.__module__}.{getattr(factory, '__qualname__', type(factory).__qualname__)}"
    try:
        source = inspect.getsource(factory)
    except (OSError, TypeError):  # made without a file
        return place
    return f"{place}#{hashlib.sha256(source.encode()).hexdigest()[:12]}"
