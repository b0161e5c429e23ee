"""Leave a model and the random states bit for bit as they were found."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_not
from types import FunctionType, MethodType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from steadygrad.errors import SetupError

__all__ = ["RandomState", "preserved", "preserved_random_state", "seeded"]

ATOMS = frozenset({bool, int, float, complex, str, bytes, NoneType, FunctionType, MethodType})


class RandomState:
    """The random states of Python, NumPy, torch on every device in use, and of ``generators``."""

    def __init__(self, *generators: torch.Generator) -> None:
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        self._generators = [(generator, generator.get_state()) for generator in generators]

    def restore(self) -> None:
        """Put every state back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
        for generator, state in self._generators:
            generator.set_state(state)


@contextmanager
def preserved_random_state(*generators: torch.Generator) -> Iterator[None]:
    """Restore the random states of Python, NumPy, torch on every device in use, and ``generators`` at the end."""
    state = RandomState(*generators)
    try:
        yield
    finally:
        state.restore()


@contextmanager
def seeded(seed: int, *generators: torch.Generator) -> Iterator[None]:
    """Run a block under ``seed`` and restore all random states afterwards."""
    with preserved_random_state(*generators):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        for generator in generators:
            generator.manual_seed(seed)
        yield


@contextmanager
def preserved(model: nn.Module, *others: Any) -> Iterator[dict[int, Tensor]]:
    """Run a block that may train ``model``, then put everything back, also when the block raises.

    Parameters, buffers (BatchNorm statistics), gradients, train/eval flags, hooks, plain attributes of every module
    and all random states are as found afterwards, the very same tensor objects holding the very same bits; so are
    the insides of tensors, lists, dicts and sets among the attributes, but not those of other objects. Within the
    block every ``.grad`` is None.

    Args:
        model: The network.
        others: What else the block may change, as a loss; only what is a module counts.

    Yields:
        The saved value of every parameter and buffer, by the ``id`` of its tensor.

    Raises:
        SetupError: If the model has lazy parameters that no batch has shaped yet.
    """
    kept = _Kept(model, *others)
    with preserved_random_state(*kept.generators):
        try:
            yield {id(tensor.tensor): tensor.value for tensor in kept.tensors}
        finally:
            kept.restore()


class _Kept:
    """Everything of a model that a forward, backward or optimizer step may change."""

    def __init__(self, *values: Any) -> None:
        self.tensors: list[_KeptTensor] = []
        self.generators: list[torch.Generator] = []
        self._containers: list[tuple[Any, Any]] = []
        self._modes: list[tuple[torch.jit.ScriptModule, bool]] = []
        seen: set[int] = set()
        open_ends: list[Any] = list(values)
        while open_ends:
            value = open_ends.pop()
            if type(value) in ATOMS or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, torch.jit.ScriptModule):  # keeps what it has outside of Python
                self._modes.append((value, value.training))
                open_ends.extend((*value.children(), *value.parameters(recurse=False), *value.buffers(recurse=False)))
            if isinstance(value, nn.Module):
                value = value.__dict__
            if isinstance(value, dict):
                self._containers.append((value, dict(value)))
                open_ends.extend(value.values())
            elif isinstance(value, (list, set, deque)):
                self._containers.append((value, list(value)))
                open_ends.extend(value)
            elif isinstance(value, tuple):
                open_ends.extend(value)
            elif isinstance(value, Tensor):
                self.tensors.append(_KeptTensor(value))
            elif isinstance(value, torch.Generator):
                self.generators.append(value)

    def restore(self) -> None:
        for container, saved in self._containers:
            if isinstance(container, dict):
                if container.keys() != saved.keys() or any(map(is_not, container.values(), saved.values())):
                    container.clear()
                    container.update(saved)
            elif len(container) != len(saved) or any(map(is_not, container, saved)):
                container.clear()
                container.update(saved) if isinstance(container, set) else container.extend(saved)
        for module, training in self._modes:
            module.training = training
        for tensor in self.tensors:
            tensor.restore()


class _KeptTensor:
    """A tensor's place, value, gradient and whether it requires one; takes its gradient away."""

    __slots__ = ("_grad", "_leaf", "_place", "_requires_grad", "tensor", "value")

    def __init__(self, tensor: Tensor) -> None:
        if is_lazy(tensor):
            raise SetupError(
                "model: expected parameters with a shape, got lazy ones. "
                "Run one batch through the model first, so that they take their shapes."
            )
        self.tensor = tensor
        self.value = tensor.detach().clone()
        self._place = tensor.detach()
        self._requires_grad = tensor.requires_grad
        self._leaf = tensor.is_leaf
        self._grad = tensor.grad if self._leaf else None
        if self._grad is not None:
            tensor.grad = None

    def restore(self) -> None:
        tensor, place, value = self.tensor, self._place, self.value
        if self._leaf and not tensor.is_leaf:  # the block wrote something into it that has a graph
            tensor.detach_()
        if place.layout != torch.strided:
            tensor.data = value
        elif not place.is_inference():  # which could not be changed, and cannot be written
            if not tensor.is_set_to(place):
                tensor.data = place
            if 0 in place.stride():  # an expanded tensor: write each entry once
                once = tuple(slice(1) if stride == 0 else slice(None) for stride in place.stride())
                place, value = place[once], value[once]
            place.copy_(value)
        if self._leaf:
            tensor.requires_grad_(self._requires_grad)
            tensor.grad = self._grad
