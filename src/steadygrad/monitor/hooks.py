"""Hooks that work for the model they were put on, and do nothing in a copied or saved one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._C._functorch import peek_interpreter_stack

__all__ = ["UncopiedHook", "inert", "make_inert", "within_transform"]


def inert(*args: Any, **kwargs: Any) -> None:
    """Do nothing: what a hook becomes in a copied or saved model."""


def make_inert() -> Callable[..., None]:
    """Return :func:`inert`; a hook's ``__reduce__`` names this."""
    return inert


def within_transform() -> bool:
    """Whether a transform of ``torch.func`` runs, whose tensors have no numbers of their own."""
    return peek_interpreter_stack() is not None


class UncopiedHook:
    """Call a function; in a copied or pickled model it does nothing."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        """Call the function."""
        self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return make_inert, ()
