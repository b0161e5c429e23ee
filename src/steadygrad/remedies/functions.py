"""Activations that a forward calls as functions, answered by a module instead."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["AnsweredForward", "AnsweredFunctions"]


# torch.compile (2.13) passes F.tanh and F.sigmoid by any function mode: a forward that may call them is not compiled.
_UNSEEN = frozenset({"tanh", "sigmoid"})


class AnsweredFunctions:
    """What a plan puts in place of a module's ``forward``: calls of some functions are answered by one of its children.

    Args:
        names: Of the functions: ``"relu"`` stands for ``F.relu``, ``torch.relu``, ``x.relu()`` and ``x.relu_()``.
        child: Name of the child.
    """

    def __init__(self, names: tuple[str, ...], child: str) -> None:
        self.names = names
        self.child = child

    def __repr__(self) -> str:
        return f"calls of {', '.join(self.names)} go to {self.child}"

    def of(self, owner: nn.Module) -> AnsweredForward:
        """Return the new ``forward`` of a module."""
        return AnsweredForward(owner, self.names, self.child)


class AnsweredForward:
    """The ``forward`` of one module, run in a mode that sees its calls; see :class:`AnsweredFunctions`."""

    def __init__(self, owner: nn.Module, names: tuple[str, ...], child: str) -> None:
        self._arguments = owner, names, child
        self._owner = owner
        self._child = child
        self._functions = tuple(_functions(names))
        self._in_place = tuple(_functions(tuple(f"{name}_" for name in names)))
        # Here and not as a decorator, which would import the compiler together with this package.
        self._forward = self._run if _UNSEEN.isdisjoint(names) else torch.compiler.disable(self._run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of the module's class."""
        return self._forward(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with _Answering(self._functions, self._in_place, getattr(self._owner, self._child)):
            return type(self._owner).forward(self._owner, *args, **kwargs)

    def __reduce__(self) -> Any:  # not all of torch's functions can be pickled
        return type(self), self._arguments

    @property
    def __code__(self) -> CodeType:  # where torch.export reads the names of the arguments
        return type(self._owner).forward.__code__


class _Answering(TorchFunctionMode):
    def __init__(
        self, functions: tuple[Callable[..., Any], ...], in_place: tuple[Callable[..., Any], ...], module: nn.Module
    ) -> None:
        super().__init__()
        self.functions = functions
        self.in_place = in_place
        self.module = module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.functions and func not in self.in_place:
            return func(*args, **kwargs)
        entering = args[0] if args else kwargs["input"]
        if func in self.in_place or kwargs.get("inplace") or (args and args[-1] is True):
            return entering.copy_(self.module(entering.clone()))
        return self.module(entering)


def _functions(names: tuple[str, ...]) -> list[Callable[..., Any]]:
    """Return all of torch's functions of these names."""
    return [getattr(home, n) for n in names for home in (torch, torch.special, F, Tensor) if hasattr(home, n)]
