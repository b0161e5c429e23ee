"""What a claim is: a sentence, its sources, a criterion stated before, a measurement and a judgement."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from experiments.claims import catalogue
from experiments.claims.verdict import Verdict

ARTICLES = {
    "000": "an article on vanishing and exploding gradients in deep belief networks",
    "001": "an article on exploding gradients and an optimizer grid on MNIST",
    "002": "notes on unstable gradients and how to respond to them",
    "003": "an article on exploding gradients with a linear network in PyTorch",
    "004": "an article on exploding and vanishing gradients with a network in Keras",
}

SHARED = ("experiments.claims.networks", "experiments.claims.rescue", "experiments.claims.sequences")

Outcomes = Sequence[Mapping[str, float]]
"""What was measured, one mapping a seed."""


@dataclass(frozen=True)
class Claim:
    """A claim of the articles and its experiment; the docstring of its file tells what is done.

    Attributes:
        sentence: The claim in our words.
        articles: Numbers of the articles that make it, see ``ARTICLES``.
        criterion: What counts as shown, stated before anything was measured.
        measure: ``measure(seed, quick) -> numbers``; all chance comes from the seed. The quick form is only there to
            see that the experiment runs.
        judge: ``judge(outcomes over seeds) -> Verdict``.
    """

    sentence: str
    articles: tuple[str, ...]
    criterion: str
    measure: Callable[[int, bool], dict[str, float]]
    judge: Callable[[Outcomes], Verdict]


def load_claims() -> dict[str, Claim]:
    """Return all claims by the names of their files."""
    return {name: _module(name).CLAIM for _, name, _ in pkgutil.iter_modules(catalogue.__path__)}


def description(name: str) -> str:
    """Return what the experiment of a claim does, in words."""
    return inspect.getdoc(_module(name)) or ""


def fingerprint(name: str) -> str:
    """Return a hash of a claim's experiment, with the shared files it uses.

    The words of the claim (docstring, comments, ``CLAIM``) do not count.
    """
    return hashlib.sha256("\n".join(_code(_module(name))).encode()).hexdigest()[:12]


def _code(module: ModuleType) -> Iterator[str]:
    for statement in ast.parse(inspect.getsource(module)).body[1:]:
        if isinstance(statement, ast.ImportFrom) and statement.module in SHARED:
            yield from _code(importlib.import_module(statement.module))
        elif not (isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) in ("CLAIM", "CRITERION")):
            yield ast.unparse(statement)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{catalogue.__name__}.{name}")
