"""What a remedy is: a card that describes it and a change ``TrainingSetup -> TrainingSetup``."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from functools import update_wrapper
from typing import Concatenate, Generic, Literal, ParamSpec, cast

from steadygrad.errors import UsageError
from steadygrad.records import Symptom
from steadygrad.records.prescription import Setting
from steadygrad.training.setup import TrainingSetup

__all__ = ["Card", "Composition", "Factory", "Remedy", "Site", "compose", "remedy", "suggest"]

P = ParamSpec("P")


class Site(StrEnum):
    """What part of a set-up a remedy changes."""

    MODEL = "model"
    GRADIENT = "gradient"
    WEIGHT = "weight"
    OPTIMIZER = "optimizer"
    LOSS = "loss"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a remedy before it is tried.

    Attributes:
        name: Its name in the catalogue.
        treats: The symptoms it is prescribed for; none if it serves generalization alone.
        site: What it changes. The sites MODEL and DATA get a copy of the model to work on.
        summary: What it does, one sentence.
        reference: Where it comes from.
        hurts: When it does harm.
        cost: What it costs a training.
        not_for: What it does not cure, though it is often said to.
        formula: The change in one line.
    """

    name: str
    treats: tuple[Symptom, ...]
    site: Site
    summary: str
    reference: str
    hurts: str = ""
    cost: str = "none"
    not_for: str = ""
    formula: str = ""


class Factory(Generic[P]):
    """Make a :class:`Remedy` from settings: what the decorator :func:`remedy` turns a change into.

    Attributes:
        card: What is known about the remedy.
        change: The change itself, ``change(setup, **settings) -> setup``; it may write to the model it is given.
    """

    def __init__(self, card: Card, change: Callable[Concatenate[TrainingSetup, P], TrainingSetup]) -> None:
        update_wrapper(self, change)
        self.card = card
        self.change = change
        parameters = list(inspect.signature(change).parameters.values())[1:]
        self.__signature__ = inspect.Signature(parameters, return_annotation=Remedy)

    def __call__(self, *args: P.args, **settings: P.kwargs) -> Remedy:
        """Check the settings and return the remedy.

        Raises:
            UsageError: If a setting is unknown or none of its choices.
        """
        if args:
            raise UsageError(f"{self.card.name}: expected settings by name, got {args[0]!r}. {self._settings_line()}")
        for name, value in settings.items():
            self._check(name, value)
        return Remedy(self, cast("dict[str, Setting]", settings))

    @property
    def defaults(self) -> str:
        """The settings with their defaults, and the choices where they are few: ``"kind='layer' (layer, batch)"``."""
        hints = typing.get_type_hints(self.change)
        parts = []
        for name, parameter in self.__signature__.parameters.items():
            choices = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is Literal else ()
            parts.append(f"{name}={parameter.default!r}" + (f" ({', '.join(map(str, choices))})" if choices else ""))
        return ", ".join(parts)

    def __reduce__(self) -> str:
        return self.change.__name__  # a module-level name: pickled by reference, as functions are

    def _check(self, name: str, value: object) -> None:
        if name not in self._names():
            hint = suggest(name, self._names()) or self._settings_line()
            raise UsageError(f"{self.card.name}: expected one of its settings, got {name!r}. {hint}")
        annotation = typing.get_type_hints(self.change)[name]
        inside = typing.get_args(annotation)
        if typing.get_origin(annotation) is Literal:
            if value not in inside:
                raise UsageError(
                    f"{self.card.name}: expected for {name!r} one of {', '.join(inside)}, got {value!r}. "
                    + (suggest(str(value), list(inside)) or "Choose one of them.")
                )
        elif annotation is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{self.card.name}: expected for {name!r} True or False, got {value!r}.")
        elif not _is_number(value) and not (value is None and type(None) in inside):
            raise UsageError(f"{self.card.name}: expected for {name!r} a number, got {value!r}. Pass a float.")

    def _names(self) -> list[str]:
        return list(self.__signature__.parameters)

    def _settings_line(self) -> str:
        return f"Its settings are {', '.join(self._names())}." if self._names() else "It has no settings."


@dataclass(frozen=True)
class Remedy:
    """A change ``TrainingSetup -> TrainingSetup`` with its settings; the set-up it is given stays as it is.

    Attributes:
        factory: Where it comes from.
        settings: Plain numbers, strings and bools by name, only those that were given.
    """

    factory: Factory[...] = field(repr=False)
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def card(self) -> Card:
        """What is known about the remedy."""
        return self.factory.card

    def __call__(self, setup: TrainingSetup) -> TrainingSetup:
        """Return a changed set-up.

        Raises:
            NotApplicableError: If the remedy does not fit this set-up; the message says why.
            UsageError: If a setting is out of range.
        """
        if self.card.site in (Site.MODEL, Site.DATA):
            setup = setup.replace(model=copy.deepcopy(setup.model))
        return self.factory.change(setup, **self.settings)

    def __str__(self) -> str:
        return f"{self.card.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"


@dataclass(frozen=True, slots=True)
class Composition:
    """Remedies applied one after the other, the first one first."""

    remedies: tuple[Callable[[TrainingSetup], TrainingSetup], ...]

    def __call__(self, setup: TrainingSetup) -> TrainingSetup:
        """Return the set-up after all changes."""
        for each in self.remedies:
            setup = each(setup)
        return setup


def compose(*remedies: Callable[[TrainingSetup], TrainingSetup]) -> Composition:
    """Return one change that applies ``remedies`` in the order given; without any it changes nothing."""
    return Composition(remedies)


def remedy(card: Card) -> Callable[[Callable[Concatenate[TrainingSetup, P], TrainingSetup]], Factory[P]]:
    """Turn ``change(setup, *, settings...)`` into a factory ``change(settings...) -> Remedy``."""

    def decorate(change: Callable[Concatenate[TrainingSetup, P], TrainingSetup]) -> Factory[P]:
        return Factory(card, change)

    return decorate


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def suggest(name: str, choices: list[str]) -> str:
    """Return ``Did you mean 'nearest'?``, or an empty string if nothing is near."""
    near = get_close_matches(name.lower(), choices, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""
