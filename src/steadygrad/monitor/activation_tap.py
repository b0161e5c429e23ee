"""Read what each layer of one model gives, and the gradient that comes back to it, by forward hooks and tensor hooks.

No full-backward hooks: they raise on in-place modules and cut compiled graphs. On a CPU numbers are exact and go to
the host at once; on other devices, and in compiled code, they are written into one preallocated tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from steadygrad.monitor.hooks import make_inert, within_transform
from steadygrad.monitor.norms import exact_norm, squares_of
from steadygrad.monitor.output_stats import COLUMNS as OUTPUT_COLUMNS
from steadygrad.monitor.output_stats import (
    OutputKind,
    Sample,
    as_array,
    exact_stats,
    output_stats_by_tensors,
    sample_of,
    sample_stats,
    sampled,
)
from steadygrad.records import Role
from steadygrad.signals.layers import kind_of, plain_name, role_of

__all__ = ["COLUMNS", "ActivationTap", "Watch", "inner_model"]

GRAD_COLUMNS = ("output_grad_rms", "output_grad_nonfinite", "output_grad_subnormal")
COLUMNS = (*OUTPUT_COLUMNS, *GRAD_COLUMNS)
GRAD = len(OUTPUT_COLUMNS)
NAN = float("nan")
# They hand on what comes in; what they give is the layer before's, but for dropout's own zeros and scale.
TRANSPARENT = (nn.Identity, nn.Flatten, nn.Unflatten, _DropoutNd)
NORMAL = torch.finfo(torch.float16).tiny  # below it float16 loses bits one by one, and below 6e-8 all


def inner_model(model: nn.Module) -> nn.Module:
    """Return the network within ``torch.compile``, DistributedDataParallel, DataParallel and Fabric's wrapper."""
    inner = getattr(model, "_orig_mod", getattr(model, "_original_module", model))
    if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return inner_model(inner.module)
    return inner


@dataclass
class Watch:
    """Whether the coming step is looked at; shared by all hooks of a monitor."""

    due: bool = False
    muted: bool = False


class _ForwardHook:
    """Hand a layer's output to its tap in the step of a look; a copied or pickled model gets an inert one."""

    __slots__ = ("kind", "row", "tap", "watch")

    def __init__(self, tap: ActivationTap, row: int, module: nn.Module) -> None:
        self.tap, self.row, self.watch, self.kind = tap, row, tap.watch, OutputKind.of(module)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.watch.due or not torch.is_grad_enabled():
            return
        if torch.compiler.is_compiling():
            self.tap.traced(self, output)
        else:
            self.tap.seen(self, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return make_inert, ()


class ActivationTap:
    """Statistics of the outputs of a model's layers: those with parameters of their own, and all leaf modules.

    Modules that hand their input on (``Identity``, ``Flatten``, ``Dropout``) are none.
    Of several calls in one step the last one counts. Calls without recording gradients (evaluation) do not.

    Args:
        model: The network.
        watch: Whether a look is due.
        on_fault: Gets an exception of this tap.

    Attributes:
        names: Qualified names of the layers, in the order of the rows of :attr:`table`.
        table: Shape ``(layers, len(COLUMNS))``, float64; NaN where not seen since :meth:`take`.
    """

    def __init__(self, model: nn.Module, watch: Watch, on_fault: Callable[[BaseException], None]) -> None:
        self.watch, self._on_fault = watch, on_fault
        self.names: list[str] = []
        modules = []
        for name, module in inner_model(model).named_modules():
            leaf = next(module.children(), None) is None
            if (leaf or next(module.parameters(recurse=False), None) is not None) and not isinstance(
                module, (torch.jit.ScriptModule, *TRANSPARENT)
            ):
                self.names.append(plain_name(name) or kind_of(module))
                modules.append(module)
        self.roles: list[Role] = [role_of(module) for module in modules]
        first = next(inner_model(model).parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        self.table = torch.full((len(modules), len(COLUMNS)), NAN, dtype=torch.float64, device=device)
        self._on_host = device.type == "cpu"
        # By row, outputs and gradients: samples, to be read when the step is over, or what was read at once.
        self._outputs: dict[int, Sample | list[float]] = {}
        self._grads: dict[int, np.ndarray | list[float]] = {}
        self._eager = False  # whether the last look saw eager code on a CPU alone
        self._hooked = [(module, _ForwardHook(self, row, module)) for row, module in enumerate(modules)]
        self._hooks: list[Any] = []
        self.arm(True)

    def arm(self, due: bool) -> None:
        """Put the hooks on before a step with a look, and take them away after it, as even idle ones take their time.

        Where code is compiled they stay: what is compiled without them would never call them.
        """
        if due and not self._hooks:
            self._hooks = [module.register_forward_hook(hook) for module, hook in self._hooked]
        elif not due and self._eager:
            self.detach()

    def detach(self) -> None:
        """Take all hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> Tensor | np.ndarray:
        """Return a copy of the table and forget what was seen."""
        if not self._on_host:
            taken = self.table.clone()
            self.table.fill_(NAN)
            return taken
        written = self.table.numpy()
        table = written.copy()
        written.fill(NAN)
        self._eager = bool(self._outputs) and bool(np.isnan(table[:, 0]).all())
        self._read_samples(table)
        self._outputs, self._grads = {}, {}
        return table

    def seen(self, hook: _ForwardHook, output: Any) -> None:
        """Measure an output in eager code."""
        if self.watch.muted or within_transform():
            return
        try:
            tensor = output if type(output) is Tensor and output.is_floating_point() else _floating(output)
            if tensor is None or not tensor.numel():
                return
            if not (self._on_host and tensor.is_cpu):
                self._write(hook, tensor)
                return
            row, place, node = hook.row, tensor.output_nr, tensor.grad_fn
            self._grads.pop(row, None)  # of several calls the last one counts
            values = as_array(tensor)
            if values is not None and values.ndim > 1:
                self._outputs[row] = sample_of(hook.kind, values)
            else:
                self._outputs[row] = exact_stats(hook.kind, tensor.detach())
            if node is not None:  # a hook on the node costs half of one on the tensor
                node.register_prehook(lambda grads: self._seen_grad(row, grads[place]))
            elif tensor.requires_grad:
                tensor.register_hook(lambda grad: self._seen_grad(row, grad))
        except Exception as error:
            self._on_fault(error)

    def traced(self, hook: _ForwardHook, output: Any) -> None:
        """Measure an output in compiled code; no exception may be caught here, and no number read."""
        tensor = _floating(output)
        if tensor is not None:
            self._write(hook, tensor)

    def _seen_grad(self, row: int, grad: Tensor | None) -> None:
        try:
            if grad is None or row in self._grads:  # of several calls the last one's gradient comes first
                return
            values = as_array(grad)
            if values is not None:
                self._grads[row] = sampled(values)
            else:
                norm, bad = exact_norm(grad)
                subnormal = _subnormal(grad).item() if grad.dtype == torch.float16 else NAN
                self._grads[row] = [_rms(norm, grad.numel() - bad), bad, subnormal]
        except Exception as error:
            self._on_fault(error)

    def _read_samples(self, table: np.ndarray) -> None:
        """Read what was kept, one after the other: that takes half the time it would take amid the network's work."""
        samples = {row: kept for row, kept in self._outputs.items() if isinstance(kept, Sample)}
        if samples:
            table[list(samples), :GRAD] = sample_stats(list(samples.values()))
        grads = {row: kept for row, kept in self._grads.items() if isinstance(kept, np.ndarray)}
        found = zip(grads.values(), *squares_of([torch.from_numpy(grad) for grad in grads.values()]), strict=True)
        pairs = [(_rms(math.sqrt(squares), grad.size - bad), bad) for grad, squares, bad in found]
        table[list(grads), GRAD : GRAD + 2] = np.array(pairs).reshape(-1, 2)
        for columns, kept_of in (slice(GRAD), self._outputs), (slice(GRAD, None), self._grads):
            for row, kept in kept_of.items():
                if isinstance(kept, list):
                    table[row, columns] = kept

    def _write(self, hook: _ForwardHook, tensor: Tensor) -> None:
        """Write the statistics of an output into the table by tensor operations alone."""
        table, row = self.table, hook.row
        table[row, :GRAD].copy_(output_stats_by_tensors(hook.kind, tensor.detach()))
        if tensor.requires_grad:
            tensor.register_hook(lambda grad: _write_grad(table, row, grad))


def _floating(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := _floating(item)) is not None), None)


def _rms(norm: float, count: int) -> float:
    return norm / math.sqrt(max(count, 1))


def _write_grad(table: Tensor, row: int, grad: Tensor) -> None:
    finite = grad.isfinite()
    count = finite.sum().double()
    rms = (torch.where(finite, grad, 0.0).double().square().sum() / count.clamp(min=1.0)).sqrt()
    subnormal = _subnormal(grad) if grad.dtype == torch.float16 else torch.full_like(rms, NAN)
    table[row, GRAD:].copy_(torch.stack([rms, grad.numel() - count, subnormal]))


def _subnormal(grad: Tensor) -> Tensor:
    """Return the share of the nonzero entries of a float16 tensor that lie below its normal numbers."""
    size = grad.abs()
    return ((size > 0) & (size < NORMAL)).sum().double() / (size > 0).sum().clamp(min=1)
