"""Hooks that work for the model they were put on, and do nothing in a copied or saved one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

__all__ = ["UncopiedHook", "inert", "on_grad", "within_transform"]


def inert(*args: Any, **kwargs: Any) -> None:
    """Do nothing: what a hook becomes in a copied or saved model."""


def _make_inert() -> Callable[..., None]:
    return inert


def within_transform() -> bool:
    """Whether a transform of ``torch.func`` runs, whose tensors have no numbers of their own."""
    return peek_interpreter_stack() is not None


def on_grad(tensor: Tensor, function: Callable[[Tensor | None], None]) -> None:
    """Hand the gradient that comes back to a tensor to a function; None where none comes."""
    node, place = tensor.grad_fn, tensor.output_nr
    if node is not None:  # called after hooks on the tensor, which may change its gradient
        node.register_prehook(lambda grads: function(grads[place]))
    elif tensor.requires_grad:
        tensor.register_hook(function)


class UncopiedHook(partial[None]):
    """Call a function; in a copied or pickled model it does nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inert, ()
