"""Keras on torch: the graph of operations that autograd keeps, and the gradients of one pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from steadygrad.integrations.keras.recorder import Gradients, Recorder

__all__ = ["Torch"]


class Torch:
    """A tensor that no gradient flows through stands for itself."""

    def node(self, tensor: Tensor) -> Hashable:
        """Return the operation that made a tensor."""
        return tensor.grad_fn or id(tensor)

    def before(self, node: Any) -> Iterable[Hashable]:
        """Return the operations whose results went into one."""
        return () if isinstance(node, int) else (found for found, _ in node.next_functions if found is not None)

    def name(self, node: Any) -> str:
        """Return the kind of an operation, in lower case."""
        return "placeholder" if isinstance(node, int) else type(node).__name__.rpartition("Backward")[0].lower()

    @torch.enable_grad()
    def differentiate(
        self, forward: Callable[[Any], tuple[Tensor, Any]], batch: Any, recorder: Recorder, variables: Sequence[Any]
    ) -> Gradients:
        """Run ``forward(batch) -> loss, output``, and return gradients at all recorded outputs and variables."""
        loss, output = forward(batch)
        wanted = [*recorder.outputs, *(variable.value for variable in variables)]
        places = [place for place, tensor in enumerate(wanted) if tensor is not None and tensor.requires_grad]
        grads: list[Tensor | None] = [None] * len(wanted)
        if places and loss.requires_grad:
            found = torch.autograd.grad(loss, [wanted[place] for place in places], allow_unused=True)
            for place, grad in zip(places, found, strict=True):
                grads[place] = grad
        count = len(recorder.outputs)
        return Gradients(loss, output, recorder.outputs, recorder.entries, grads[:count], grads[count:])
