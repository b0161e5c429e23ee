"""Hooks that work for the model they were put on, and do nothing in a copied or saved one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

__all__ = ["UncopiedHook", "inert", "on_grad", "within_transform"]

OURS = None  # key of our hook among a tensor's; those of torch are numbers


def inert(*args: Any, **kwargs: Any) -> None:
    """Do nothing: what a hook becomes in a copied or saved model."""


def _make_inert() -> Callable[..., None]:
    return inert


def within_transform() -> bool:
    """Whether a transform of ``torch.func`` runs, whose tensors have no numbers of their own."""
    return peek_interpreter_stack() is not None


def on_grad(tensor: Tensor, function: UncopiedHook) -> None:
    """Hand the gradient that comes back to a tensor to a function, after hooks on the tensor, which may change it."""
    node = tensor.grad_fn
    if node is None:
        if tensor.requires_grad:
            _on_next_grad(tensor, function)
    elif type(tensor) is Tensor and tensor._backward_hooks is None:
        # What ``Tensor.register_hook`` does but for the handle, which takes most of its time.
        tensor._backward_hooks = _OursLast({OURS: function})
        node._register_hook_dict(tensor)
    else:
        place = tensor.output_nr
        node.register_prehook(lambda grads: function(grads[place]))


def _on_next_grad(leaf: Tensor, function: Callable[[Tensor], None]) -> None:
    """Hand on one gradient: a leaf, as a parameter that is an output itself, outlives the step, and so would hooks."""

    def hook(grad: Tensor) -> None:
        handle.remove()
        function(grad)

    handle = leaf.register_hook(hook)


class _OursLast(dict[Any, Any]):
    """The hooks of a tensor, called in this order: ours stays behind those that come later."""

    def __setitem__(self, key: Any, hook: Any) -> None:
        ours = self.pop(OURS, inert)
        super().__setitem__(key, hook)
        super().__setitem__(OURS, ours)


class UncopiedHook(partial[None]):
    """Call a function; in a copied or pickled model it does nothing."""

    __torch_unserializable__ = True  # torch warns of other hooks where their tensor is saved

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inert, ()
