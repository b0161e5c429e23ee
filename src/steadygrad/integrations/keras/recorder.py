"""Record one forward pass of a Keras model: every layer call in execution order, and which output went where.

The ``call`` of every layer is wrapped while the pass runs, and so is the activation that a layer applies to its own
affine part. Where a tensor comes from is read off the backend's own graph of operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras

from steadygrad.integrations.keras.layers import (
    Layer,
    activation_name,
    fans_of,
    is_opaque,
    kind_of,
    parts_of,
    role_of,
)
from steadygrad.records import Role
from steadygrad.signals.recorder import Call, Sources

__all__ = ["Gradients", "Graph", "Recorder"]

Tensor = Any
# Operations that change nothing but the form, and the ends of a graph.
SILENT = frozenset("identity cast tocopy clone readvariableop const placeholder accumulategrad shape pack".split())


class Gradients(NamedTuple):
    """One pass: loss and output, what was recorded as values, gradients at recorded outputs and at variables."""

    loss: Tensor
    output: Any
    outputs: Sequence[Tensor | None]
    entries: Sequence[Tensor]
    output_grads: Sequence[Tensor | None]
    grads: Sequence[Tensor | None]


class Graph(Protocol):
    """How a backend tells which operations made a tensor."""

    def node(self, tensor: Tensor) -> Hashable:
        """Return the operation that made a tensor."""

    def before(self, node: Any) -> Iterable[Hashable]:
        """Return the operations whose results went into one."""

    def name(self, node: Any) -> str:
        """Return the kind of an operation, in lower case."""


@dataclass
class _Frame:
    layer: Layer
    follows: Sources
    inputs: list[Tensor]
    recorded: int
    own_part: bool = False


class Recorder:
    """Record the layer calls of a forward pass that runs within ``with Recorder(model, graph, weights) as recorder:``.

    Args:
        model: The network, built.
        graph: Its backend's graph.
        weights: What stands for its floating variables in the calls, by ``id``: torch parameters.

    Attributes:
        calls: Layer calls in execution order.
        outputs: The output of each, the first floating tensor.
        functions: Names of the operations between layers.
        entries: What went into each first weight layer.
    """

    def __init__(self, model: Layer, graph: Graph, weights: dict[int, Any]) -> None:
        self._model, self._graph, self._weights = model, graph, weights
        self._stack: list[_Frame] = []
        self._closed = 0  # depth inside of opaque layers
        self._wrapped: list[tuple[Layer, str, Any]] = []

    def __enter__(self) -> Recorder:
        self.calls: list[Call] = []  # begun anew, because TensorFlow may trace a pass twice
        self.outputs: list[Tensor] = []
        self.functions: set[str] = set()
        self.entries: list[Tensor] = []
        self._positions: dict[Hashable, int] = {}
        self._repeats: Counter[str] = Counter()
        wrapped: set[int] = set()
        for part in self._model._layers:
            self._wrap(part, wrapped)
        return self

    def __exit__(self, *error: Any) -> None:
        for layer, name, before in reversed(self._wrapped):
            if before is None:
                object.__delattr__(layer, name)
            else:
                object.__setattr__(layer, name, before)
        self._wrapped.clear()

    def sources(self, tensors: Iterable[Tensor]) -> Sources:
        """Return the positions of the calls that tensors come from, and note the operations on the way."""
        found, seen, queue = set(), set(), [self._graph.node(tensor) for tensor in tensors]
        crossed = set()
        while queue:
            node = queue.pop()
            if node in self._positions:
                found.add(self._positions[node])
            elif node not in seen:
                seen.add(node)
                crossed.add(self._graph.name(node))
                queue.extend(self._graph.before(node))
        if found:
            self.functions |= crossed - SILENT
        return frozenset(found)

    def _wrap(self, layer: Layer, seen: set[int]) -> None:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            return
        seen.add(id(layer))
        self._replace(layer, "call", self._called(layer, layer.call))
        if is_opaque(layer):
            return
        function = vars(layer).get("activation")
        if callable(function) and not isinstance(function, keras.Layer) and activation_name(function) != "linear":
            self._replace(layer, "activation", self._activated(layer, function))
        for part in layer._layers:
            self._wrap(part, seen)

    def _replace(self, layer: Layer, name: str, value: Any) -> None:
        """Set an attribute past the tracking of Keras."""
        self._wrapped.append((layer, name, vars(layer).get(name)))
        object.__setattr__(layer, name, value)

    def _called(self, layer: Layer, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._closed:
                return own(*args, **kwargs)
            inputs = _tensors((args, kwargs))
            if role_of(layer) is Role.ACTIVATION and inputs:
                self._record_own_part(inputs[0])
            frame = _Frame(layer, self.sources(inputs), inputs, len(self.calls))
            self._stack.append(frame)
            self._closed += is_opaque(layer)
            try:
                output = own(*args, **kwargs)
            finally:
                self._stack.pop()
                self._closed -= is_opaque(layer)
            if is_opaque(layer) or (frame.recorded == len(self.calls) and not parts_of(layer)):
                self._record(frame, output)
            return output

        return call

    def _activated(self, layer: Layer, own: Callable[..., Any]) -> Callable[..., Any]:
        def activation(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            self._record_own_part(x)
            follows = self.sources([x])
            output = own(x, *args, **kwargs)
            name, kind = _name(layer), activation_name(own)
            full = name if isinstance(layer, keras.layers.Activation) else f"{name}:{kind}"
            self._add(Call(full, name, kind, Role.ACTIVATION, follows), output)
            return output

        return activation

    def _record_own_part(self, output: Tensor) -> None:
        """Record the affine part of the layer whose activation begins."""
        frame = self._stack[-1] if self._stack else None
        if frame is not None and not frame.own_part and role_of(frame.layer) is Role.LINEAR:
            frame.own_part = True
            self._record(frame, output)

    def _record(self, frame: _Frame, output: Any) -> None:
        layer, role = frame.layer, role_of(frame.layer)
        weights = [self._weights[id(variable)] for variable in layer.weights if id(variable) in self._weights]
        name = _name(layer)
        call = Call(name, name, kind_of(layer), role, frame.follows, tuple(weights), fans_of(layer, weights))
        if not frame.follows and role in (Role.LINEAR, Role.RECURRENT, Role.ATTENTION):
            self.entries += frame.inputs[:1]
        self._add(call, output)

    def _add(self, call: Call, output: Any) -> None:
        self._repeats[call.name] += 1
        if self._repeats[call.name] > 1:
            call.name = f"{call.name}#{self._repeats[call.name]}"
        tensors = _tensors(output)
        for tensor in tensors:
            self._positions[self._graph.node(tensor)] = len(self.calls)
        self.calls.append(call)
        self.outputs.append(tensors[0] if tensors else None)


def _name(layer: Layer) -> str:
    return str(layer.path or layer.name)


def _tensors(value: Any) -> list[Tensor]:
    """Return the floating tensors in a nest."""
    tensors = [leaf for leaf in keras.tree.flatten(value) if keras.ops.is_tensor(leaf)]
    return [tensor for tensor in tensors if "float" in keras.backend.standardize_dtype(tensor.dtype)]
