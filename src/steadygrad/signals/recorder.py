"""Record one forward pass: every layer call in execution order, and which call's output went where.

Modules are seen by forward hooks, functions (``F.relu``, ``F.linear`` with a parameter, the loss) by a torch function
mode, so that no graph has to be traced and any Python control flow works. Which layers a tensor comes from is carried
from function to function by a weak dictionary.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from steadygrad.records import Range, Role
from steadygrad.signals.layers import (
    ACTIVATION_FUNCTIONS,
    LOSS_FUNCTIONS,
    WEIGHT_FUNCTIONS,
    fan,
    fans_of,
    is_opaque,
    kind_of,
    plain_name,
    role_of,
)
from steadygrad.signals.moments import range_of

__all__ = ["Call", "Recorder"]

Sources = frozenset[int]
NOWHERE: Sources = frozenset()


@dataclass
class Call:
    """One call of one layer.

    Attributes:
        name: Qualified name, with ``#2`` from the second call on.
        module: Qualified name of the module, ``""`` for the root.
        kind: Class name of the module or name of the function.
        role: What it does.
        follows: Positions of the calls whose outputs reached it.
        parameters: The layer's own.
        fans: Fan-in and fan-out of its weight; None without one.
        tracked: Whether gradients were being recorded.
        dropout: Share of what comes in that it drops while training.
    """

    name: str
    module: str
    kind: str
    role: Role
    follows: Sources = NOWHERE
    parameters: tuple[nn.Parameter, ...] = ()
    fans: tuple[int, int] | None = None
    tracked: bool = True
    dropout: float = 0.0


class Recorder(TorchFunctionMode):
    """Record the layer calls of a forward pass that runs within ``with Recorder(model) as recorder:``.

    Hooks are removed at the end, also when the model raises. Inside of compiled modules nothing is seen unless the
    caller forces eager execution; inside of script modules nothing is seen at all.

    Args:
        model: The network.
        on_output: Called with the position, the call and the tensor it gave, before anything can change it in place.
        tolerant: Whether an exception of the recording itself ends it, in place of the forward pass.

    Attributes:
        fault: The exception that ended it.
        calls: Layer calls in execution order.
        loss: Name of the last torch loss function called; None if none was.
        loss_sources: The calls whose outputs went into it.
        loss_shapes: Shapes of the tensors that went into it.
        loss_reduction: How it reduces them; None if that was not said by keyword.
        functions: Names of the functions that were applied to outputs of layers and are no layer.
        entries: What went into each first weight layer: floating tensors that come from no layer.
    """

    def __init__(
        self,
        model: nn.Module,
        on_output: Callable[[int, Call, Tensor], None] | None = None,
        tolerant: bool = False,
    ) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self._tolerant = tolerant
        self.calls: list[Call] = []
        self.loss: str | None = None
        self.loss_sources: Sources = NOWHERE
        self.loss_shapes: tuple[tuple[int, ...], ...] = ()
        self.loss_reduction: str | None = None
        self.functions: set[str] = set()
        self.entries: list[Range] = []
        self._on_output = on_output
        self._model = model
        self._names = {module: plain_name(name) for name, module in model.named_modules()}
        self._opaque = {module for module in self._names if is_opaque(module)}
        self._parameters = {id(p): (p, plain_name(name)) for name, p in model.named_parameters()}
        self._sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._ranges: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._stack: list[tuple[nn.Module, Sources, int, BaseException | None]] = []
        self._closed = 0  # depth inside opaque modules
        self._repeats: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        for module in self._names:
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                continue
            enter, leave = partial(self._try, self._enter_module), partial(self._try, self._leave_module)
            self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            leave = module.register_forward_hook(leave, with_kwargs=True, always_call=True)
            self._handles.append(leave)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def enter_call(self, args: Any, kwargs: Any) -> None:
        """Start to record from within a hook before the model's own call; :meth:`leave_call` ends it.

        Args:
            args: Positional arguments of the call that is under way.
            kwargs: Keyword arguments of it.
        """
        self.__enter__()
        for handle in self._handles[:2]:  # those of the model itself: what they would do is done here and in leave_call
            handle.remove()
        self._enter_module(self._model, args, kwargs)

    def leave_call(self, args: Any, kwargs: Any, output: Any) -> None:
        """Record the end of the call that :meth:`enter_call` began, and record no more."""
        try:
            self._leave_module(self._model, args, kwargs, output)
        finally:  # a function mode left behind would slow and change whatever runs next
            self.__exit__(None, None, None)

    def sources(self, value: Any) -> Sources:
        """Return the positions of the calls that ``value`` (a tensor or a nest of them) comes from."""
        found = NOWHERE
        for tensor in _tensors(value):
            tag = self._sources.get(tensor)
            if tag is None and tensor._base is not None:  # a view that autograd made by itself
                tag = self._sources.get(tensor._base)
            found |= tag or NOWHERE
        return found

    def range(self, tensor: Tensor) -> Range:
        """Return the range of a tensor, read anew only if it has changed since the last time."""
        version = 0 if tensor.is_inference() else tensor._version
        known: tuple[int, Range] | None = self._ranges.get(tensor)
        if known is None or known[0] != version:
            known = self._ranges[tensor] = version, range_of(tensor)
        return known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._closed or _in_backward():
            return func(*args, **kwargs)
        follows = self._try(self.sources, (args, kwargs)) or NOWHERE
        result = func(*args, **kwargs)
        self._try(self._note_function, func, args, kwargs, follows, result)
        return result

    def _try(self, note: Callable[..., Any], *args: Any) -> Any:
        if self.fault is not None:
            return None
        try:
            return note(*args)
        except Exception as error:
            if not self._tolerant:
                raise
            self.fault = error
            return None

    def _note_function(self, func: Any, args: Any, kwargs: Any, follows: Sources, result: Any) -> None:
        name = getattr(func, "__name__", "").removeprefix("special_")
        if name.endswith("_") and not name.endswith("__"):  # in place
            name = name[:-1]
        if name in ACTIVATION_FUNCTIONS:
            module = self._names[self._stack[-1][0]] if self._stack else ""
            call = Call(f"{module}:{name}" if module else name, module, name, Role.ACTIVATION, follows)
            self._record(call, (args, kwargs), result)
        elif name in WEIGHT_FUNCTIONS and (layer := self._weight_call(name, follows, (args, kwargs))) is not None:
            self._record(layer, (args, kwargs), result)
        elif name in LOSS_FUNCTIONS:
            self.loss, self.loss_sources = name, follows
            self.loss_shapes = tuple(tuple(tensor.shape) for tensor in _tensors((args, kwargs)))
            self.loss_reduction = kwargs.get("reduction")
        else:
            if follows and self._stack:
                self.functions.add(name)
            self._tag(args[0] if name == "__setitem__" else result, follows)

    # A hook removed while torch goes through the hooks of a call is still called, and without the keyword arguments.

    def _enter_module(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        if not self._handles or _in_backward():  # closed, or a checkpoint's second forward pass
            return
        follows = NOWHERE if self._closed else self.sources((args, kwargs))
        self._stack.append((module, follows, len(self.calls), sys.exc_info()[1]))
        self._closed += module in self._opaque

    def _leave_module(self, module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        if not self._handles or _in_backward() or not self._stack or self._stack[-1][0] is not module:  # never entered
            return
        _, follows, first, handled = self._stack.pop()
        opaque = module in self._opaque
        self._closed -= opaque
        raised = sys.exc_info()[1] is not handled
        if self._closed or raised:
            return
        role = role_of(module)
        if opaque or (len(self.calls) == first and (role is not Role.OTHER or self._is_function(module))):
            name, kind = self._names[module], kind_of(module)
            parameters = tuple(module.parameters())
            with torch._C.DisableTorchFunction():
                call = Call(name or kind, name, kind, role, follows, parameters, fans_of(role, parameters))
                call.dropout = module.p if isinstance(module, _DropoutNd) else 0.0
                self._record(call, (args, kwargs), output)

    def _is_function(self, module: nn.Module) -> bool:
        """Whether a module is a leaf without parameters, other than one that makes a layer's weight."""
        leaf = next(module.children(), None) is None and next(module.parameters(), None) is None
        return leaf and "parametrizations" not in self._names[module].split(".")

    def _weight_call(self, name: str, follows: Sources, inputs: Any) -> Call | None:
        """Return the call of a function that a matrix of the model goes into, itself or a view of it."""
        tensors = _tensors(inputs)
        owned = {place: p for place, t in enumerate(tensors) if (p := self._parameter(t)) is not None}
        place = next((place for place in owned if tensors[place].dim() > 1), None)
        if place is None:
            return None
        (_, full), weight = self._parameters[id(owned[place])], tensors[place]
        role = Role.EMBEDDING if name == "embedding" else Role.LINEAR
        fans = None
        if role is Role.LINEAR:
            in_out = WEIGHT_FUNCTIONS[name] and place > 0
            fans = (weight.shape[-2], weight.shape[-1]) if in_out else fan(weight)
        parameters = (owned.pop(place), *owned.values())
        return Call(full.removesuffix(".weight"), full.rpartition(".")[0], name, role, follows, parameters, fans)

    def _parameter(self, tensor: Tensor) -> nn.Parameter | None:
        source = tensor if tensor._base is None else tensor._base
        return self._parameters.get(id(source), (None, ""))[0]

    def _record(self, call: Call, inputs: Any, output: Any) -> None:
        self._repeats[call.name] += 1
        if self._repeats[call.name] > 1:
            call.name = f"{call.name}#{self._repeats[call.name]}"
        call.tracked = torch.is_grad_enabled()
        position = len(self.calls)
        self.calls.append(call)
        self._tag(output, frozenset({position}))
        if not call.follows and call.role in (Role.LINEAR, Role.RECURRENT, Role.ATTENTION):
            entries = [t for t in _tensors(inputs) if t.is_floating_point() and self._parameter(t) is None]
            self.entries.extend(self.range(entry) for entry in entries[:1])
        tensor = next((t for t in _tensors(output) if t.is_floating_point()), None)
        if tensor is not None and self._on_output is not None:
            self._on_output(position, call, tensor)

    def _tag(self, value: Any, sources: Sources) -> None:
        if sources:
            for tensor in _tensors(value):
                self._sources[tensor] = sources


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for item in value for tensor in _tensors(item)]


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1
