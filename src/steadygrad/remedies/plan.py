"""Change a model by a plan: read it as a diff, apply it, take it back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec

from torch import nn

from steadygrad.errors import UsageError
from steadygrad.remedies.functions import AnsweredForward
from steadygrad.remedies.remedy import Card, Factory
from steadygrad.signals.blueprint import plain_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["Change", "Plan", "Planned", "Undo", "planned", "replacing"]

P = ParamSpec("P")


class _Absent(Enum):
    """Stands for the value of an entry that is not there."""

    ABSENT = "nothing"

    def __repr__(self) -> str:
        return self.value


_ABSENT: Final = _Absent.ABSENT


@dataclass(frozen=True)
class Change:
    """One entry of one module that gets a new value.

    Attributes:
        module: Qualified name of the module, ``""`` for the model itself.
        kind: ``"child"`` and ``"attribute"`` set one; ``"before"`` and ``"after"`` hook onto the forward pass;
            ``"forward"`` takes its place.
        name: Name of the child or attribute; of a hook, a word that no other hook of ours on this module has.
        value: The new value; a hook that can be pickled and copied, and whose ``repr`` says what it does.
        old: ``repr`` of the value that it takes the place of; None if there must be none.
    """

    module: str
    kind: Literal["child", "attribute", "before", "after", "forward"]
    name: str
    value: Any
    old: str | None = None

    def __str__(self) -> str:
        removed = [] if self.old is None else [f"- {self.where}: {line}" for line in self.old.splitlines()]
        return "\n".join([*removed, *(f"+ {self.where}: {line}" for line in repr(self.value).splitlines())])

    @property
    def where(self) -> str:
        """The entry in words."""
        if self.kind in ("before", "after"):
            return f"{self.kind} {self.module or 'the model'}"
        return f"{self.module}.{self.name}".lstrip(".")


class _Entry(NamedTuple):
    """An entry of a module's dictionary that was written."""

    where: str
    mapping: MutableMapping[Any, Any]
    key: str
    old: Any
    new: Any


class Undo:
    """Takes an applied plan back; see :meth:`Plan.apply_`."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries

    def undo(self) -> None:
        """Put everything back: the same module objects, parameters, hooks and state-dict keys as before the plan.

        What was trained meanwhile stays trained, and modules that return take over the mode of those that leave. The
        parameters that return are where they were: bring a model that was moved back before.

        Raises:
            UsageError: If something has changed one of the places since, or this was done already.
        """
        if not self._entries:
            raise UsageError("undo: expected an applied plan, got one that is undone already. Apply it again first.")
        for where, mapping, key, _, new in self._entries:
            if mapping.get(key, _ABSENT) is not new:
                raise UsageError(
                    f"undo: expected at {where} what the plan put there, {new!r}, found {mapping.get(key, _ABSENT)!r}. "
                    "Undo later changes first."
                )
        self._restore()

    def _restore(self) -> None:
        while self._entries:
            _, mapping, key, old, new = self._entries.pop()
            if old is _ABSENT:
                del mapping[key]
                continue
            mapping[key] = old
            if isinstance(old, nn.Module) and old.training != new.training:
                old.train(new.training)


@dataclass(frozen=True)
class Plan:
    """Named changes of a model that leave everything else as it is; ``str(plan)`` is a diff.

    Attributes:
        changes: In the order in which they are made.
    """

    changes: tuple[Change, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes))

    def apply_(self, model: nn.Module) -> Undo:
        """Change ``model`` in place and return the way back.

        The modules and hooks are copied first, so a plan can be applied to any number of copies of its model.
        Optimizers that exist already do not know new parameters.

        Raises:
            UsageError: If the model is not what the plan was made for; nothing is changed then.
        """
        entries: list[_Entry] = []
        undo = Undo(entries)
        try:
            for change in copy.deepcopy(self.changes):
                entries.extend(_write(plain_model(model), change))
        except UsageError:
            undo._restore()
            raise
        return undo


def _write(model: nn.Module, change: Change) -> Iterable[_Entry]:
    try:
        owner = model.get_submodule(change.module)
    except AttributeError:
        raise UsageError(
            f"plan: expected a module {change.module!r}, found none. Apply the plan to its own model."
        ) from None
    if change.kind == "forward":
        yield _put(change.where, owner.__dict__, "forward", _new_forward(owner, change))
        return
    entries: dict[str, tuple[MutableMapping[Any, Any], str]] = {
        "child": (owner._modules, change.name),
        "attribute": (owner.__dict__, change.name),
        # Hooks that torch numbers would overwrite each other where a pickled model meets the numbers of a new process.
        "before": (owner._forward_pre_hooks, f"steadygrad.{change.name}"),
        "after": (owner._forward_hooks, f"steadygrad.{change.name}"),
    }
    mapping, key = entries[change.kind]
    old = mapping.get(key, _ABSENT)
    if (None if old is _ABSENT else repr(old)) != change.old:
        raise UsageError(
            f"plan: expected at {change.where} {change.old or 'nothing'}, found {old!r}. Make the plan afresh."
        )
    if change.kind == "child":
        change.value.train(owner.training if old is _ABSENT else old.training)
    yield _put(change.where, mapping, key, change.value)
    if change.kind in ("before", "after") and "forward" not in owner.__dict__:
        # torch.compile does not look at hooks when it asks whether code that it compiled for a module of this class
        # fits (skip_nnmodule_hook_guards), but at an own ``forward``: without it, a hooked copy runs unhooked code.
        yield _put(f"{change.module}.forward", owner.__dict__, "forward", owner.forward)


def _new_forward(owner: nn.Module, change: Change) -> AnsweredForward:
    present = owner.__dict__.get("forward")
    if present is not None and getattr(present, "__func__", None) is not type(owner).forward:  # the one for hooks is
        raise UsageError(
            f"plan: expected at {change.where} the forward of {type(owner).__name__}, found {present!r}. "
            "Undo what put it there first."
        )
    forward: AnsweredForward = change.value.of(owner)
    return forward


def _put(where: str, mapping: MutableMapping[Any, Any], key: str, new: Any) -> _Entry:
    old = mapping.get(key, _ABSENT)
    mapping[key] = new
    return _Entry(where, mapping, key, old, new)


def replacing(model: nn.Module, old: nn.Module, new: nn.Module) -> list[Change]:
    """Return the changes that put ``new`` wherever ``old`` stands below ``model``, under every name it has."""
    names = [
        name for name, module in plain_model(model).named_modules(remove_duplicate=False) if module is old and name
    ]
    parts = [name.rpartition(".") for name in names]
    return [Change(parent, "child", leaf, new, old=repr(old)) for parent, _, leaf in parts]


class Planned(Factory[P]):
    """A factory whose remedy is a plan applied to the model: what the decorator :func:`planned` makes."""

    def __init__(self, card: Card, draw: Callable[Concatenate[TrainingSetup, P], Plan]) -> None:
        @wraps(draw)
        def change(setup: TrainingSetup, /, *args: P.args, **settings: P.kwargs) -> TrainingSetup:
            draw(setup, *args, **settings).apply_(setup.model)
            return setup

        super().__init__(card, change)
        self._draw = draw

    def plan(self, setup: TrainingSetup, /, *args: P.args, **settings: P.kwargs) -> Plan:
        """Return what the remedy would change in the set-up's model; nothing is changed yet.

        Raises:
            NotApplicableError: If the remedy does not fit this set-up.
            UsageError: If a setting is unknown or out of range.
        """
        self(*args, **settings)
        return self._draw(setup, *args, **settings)


def planned(card: Card) -> Callable[[Callable[Concatenate[TrainingSetup, P], Plan]], Planned[P]]:
    """Turn ``draw(setup, *, settings...) -> Plan`` into a factory of remedies with :meth:`Planned.plan`."""

    def decorate(draw: Callable[Concatenate[TrainingSetup, P], Plan]) -> Planned[P]:
        return Planned(card, draw)

    return decorate
