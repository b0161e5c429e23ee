"""All remedies by name, and by what others call them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from steadygrad.errors import UsageError
from steadygrad.records.prescription import Setting
from steadygrad.remedies.glossary import GLOSSARY, Term
from steadygrad.remedies.remedy import Factory, Remedy, suggest

__all__ = ["CATALOGUE", "find", "make"]


def _found() -> dict[str, Factory]:
    """Return every remedy that a module of this package makes, by name, in alphabetical order."""
    package = import_module(__package__)
    modules = [
        import_module(f"{__package__}.{m.name}") for m in iter_modules(package.__path__) if m.name != "catalogue"
    ]
    things = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Factory)]
    return {factory.card.name: factory for factory in sorted(things, key=lambda factory: factory.card.name)}


CATALOGUE: dict[str, Factory] = _found()
"""Name to factory: ``CATALOGUE["activation"](to="gelu")``."""


def make(name: str, /, **settings: Setting) -> Remedy:
    """Return the remedy of that name with its settings: a record's ``Step(remedy, settings)`` as something that runs.

    Raises:
        UsageError: If there is no such remedy or setting.

    Example:
        >>> print(make("clip_by_global_norm", max_norm=0.5))
        clip_by_global_norm(max_norm=0.5)
    """
    if name not in CATALOGUE:
        hint = suggest(name, list(CATALOGUE)) or "The command `steadygrad remedies` lists them all."
        raise UsageError(f"make: expected the name of a remedy, got {name!r}. {hint}")
    return CATALOGUE[name](**settings)


def find(name: str) -> Term:
    """Return the term of that name; a remedy's own name is one too. Case, hyphens and underscores do not matter.

    Raises:
        UsageError: If nothing has that name.

    Example:
        >>> find("Cumulative clipping").remedy
        'clip_by_global_norm'
    """
    terms = {_plain(remedy): Term(remedy, remedy) for remedy in CATALOGUE}
    terms |= {_plain(term.name): term for term in GLOSSARY if _plain(term.name) not in terms}
    if _plain(name) not in terms:
        hint = suggest(_plain(name), list(terms)) or "The command `steadygrad remedies` lists them all."
        raise UsageError(f"remedies: expected a remedy or a technique, got {name!r}. {hint}")
    return terms[_plain(name)]


def _plain(name: str) -> str:
    return name.lower().replace("-", " ").replace("_", " ")
