"""Read what each layer of one model gives, and the gradient that comes back to it, by forward hooks and tensor hooks.

No full-backward hooks: they raise on in-place modules and cut compiled graphs. On a CPU numbers are exact and go to
the host at once; on other devices, and in compiled code, they are written into one preallocated tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from steadygrad.monitor.compiled_stats import Readers
from steadygrad.monitor.hooks import UncopiedHook, on_grad, within_transform
from steadygrad.monitor.norms import exact_norm
from steadygrad.monitor.output_stats import COLUMNS as OUTPUT_COLUMNS
from steadygrad.monitor.output_stats import OutputKind, as_array, exact_stats, output_stats_by_tensors
from steadygrad.monitor.samples import Sample, grad_stats, sample_of, sample_stats, sampled
from steadygrad.records import Role
from steadygrad.signals.layers import kind_of, plain_name, role_of

__all__ = ["COLUMNS", "ActivationTap", "Watch", "inner_model"]

GRAD_COLUMNS = ("output_grad_rms", "output_grad_nonfinite", "output_grad_subnormal")
COLUMNS = (*OUTPUT_COLUMNS, *GRAD_COLUMNS)
GRAD = len(OUTPUT_COLUMNS)
NAN = float("nan")
MANY = 2**7  # outputs whose samples may wait to be read: 2 MiB, which other work leaves in the cache
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
    """Whether the coming step is looked at, and by which compiled kernels if any; shared by all hooks of a monitor."""

    due: bool = False
    muted: bool = False
    readers: Readers | None = None


@dataclass
class Kept:
    """What was kept of a look, by row: samples, to be read later on, or what was read at once.

    Attributes:
        outputs: Of outputs.
        grads: Of their gradients; None where the table holds it already.
        table: What it comes to, in the end.
    """

    outputs: dict[int, Sample | list[float]] = field(default_factory=dict)
    grads: dict[int, np.ndarray | list[float] | None] = field(default_factory=dict)
    table: np.ndarray = field(init=False)


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
        if self._on_host:
            self._written = self.table.numpy()
            self._nothing = self._written.copy()
        self._kept = Kept()
        self._unread: list[Kept] = []
        self._eager = False  # whether the last look saw eager code on a CPU alone
        self._hooked = [
            (module, UncopiedHook(self._called, row, OutputKind.of(module))) for row, module in enumerate(modules)
        ]
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

    def take(self) -> Tensor | Kept:
        """Return what was seen, for :meth:`table_of`, and forget it."""
        if not self._on_host:
            taken = self.table.clone()
            self.table.fill_(NAN)
            self._kept = Kept()
            return taken
        written, kept = self._written, self._kept
        traced = written.tobytes() != self._nothing.tobytes()  # cold, a function of NumPy takes longer
        kept.table = (written if traced else self._nothing).copy()
        if traced:
            written.fill(NAN)
        self._eager = bool(kept.outputs) and not traced
        self._kept = Kept()
        self._unread.append(kept)
        if len(self._unread) * len(self.names) > MANY:
            self._read()
        return kept

    def table_of(self, taken: np.ndarray | Kept) -> np.ndarray:
        """Return the table of a look, on the host; what waits to be read is read with it, which takes hardly longer."""
        if isinstance(taken, np.ndarray):
            return taken
        if self._unread:
            self._read()
        return taken.table

    def _called(self, row: int, kind: OutputKind, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.watch.due or not torch.is_grad_enabled():
            return
        if torch.compiler.is_compiling():
            self._traced(row, kind, output)
        else:
            self._seen(row, kind, output)

    def _seen(self, row: int, kind: OutputKind, output: Any) -> None:
        """Measure an output in eager code."""
        if self.watch.muted or within_transform():
            return
        try:
            tensor = output if type(output) is Tensor and output.is_floating_point() else _floating(output)
            if tensor is None or not tensor.numel():
                return
            self._kept.grads.pop(row, None)  # of several calls the last one counts
            if self._on_host and tensor.is_cpu:
                self._kept.outputs[row] = self._read_output(kind, tensor)
            else:
                self._write(row, kind, tensor)
            on_grad(tensor, UncopiedHook(self._seen_grad, row))
        except Exception as error:
            self._on_fault(error)

    def _read_output(self, kind: OutputKind, output: Tensor) -> Sample | list[float]:
        """Return the statistics of an output, or a sample to be read with others."""
        compiled = self.watch.readers
        if compiled is not None and output.dim() > 1 and (stats := compiled.outputs(kind, output)) is not None:
            return stats
        values = as_array(output)
        if values is not None and values.ndim > 1:
            return sample_of(kind, values)
        return exact_stats(kind, output.detach())

    def _read_grad(self, grad: Tensor) -> np.ndarray | list[float]:
        """Return the same of an output's gradient."""
        compiled = self.watch.readers
        if compiled is not None and grad.dim() > 0 and (rms := compiled.grads(grad)) is not None:
            return [rms, 0.0, NAN]
        values = as_array(grad)
        if values is not None and values.ndim > 0:
            return sampled(values)
        norm, bad = exact_norm(grad)
        subnormal = _subnormal(grad).item() if grad.dtype == torch.float16 else NAN
        return [_rms(norm, grad.numel() - bad), bad, subnormal]

    def _traced(self, row: int, kind: OutputKind, output: Any) -> None:
        """Measure an output in compiled code; no exception may be caught here, and no number read."""
        tensor = _floating(output)
        if tensor is not None:
            self._write(row, kind, tensor)
            table = self.table
            if tensor.requires_grad:
                tensor.register_hook(lambda grad: _write_grad(table, row, grad))

    def _seen_grad(self, row: int, grad: Tensor | None) -> None:
        try:
            if grad is None or row in self._kept.grads:  # of several calls the last one's gradient comes first
                return
            if self._on_host and grad.is_cpu:
                self._kept.grads[row] = self._read_grad(grad)
            else:
                self._kept.grads[row] = None
                _write_grad(self.table, row, grad)
        except Exception as error:
            self._on_fault(error)

    def _read(self) -> None:
        """Read what was kept: one after the other they take half the time, and eight looks little more than one."""
        unread, self._unread = self._unread, []
        _fill([(kept.table[:, :GRAD], kept.outputs) for kept in unread], sample_stats)
        _fill([(kept.table[:, GRAD:], kept.grads) for kept in unread], grad_stats)

    def _write(self, row: int, kind: OutputKind, tensor: Tensor) -> None:
        """Write the statistics of an output into the table by tensor operations alone."""
        self.table[row, :GRAD].copy_(output_stats_by_tensors(kind, tensor.detach()))


def _floating(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := _floating(item)) is not None), None)


def _fill(tables: list[tuple[np.ndarray, dict[int, Any]]], stats: Callable[[list[Any]], np.ndarray]) -> None:
    """Write into tables what was kept of their rows: numbers as they are, samples by their statistics."""
    samples = [
        [row for row, each in kept.items() if each is not None and not isinstance(each, list)] for _, kept in tables
    ]
    read = stats([kept[row] for rows, (_, kept) in zip(samples, tables, strict=True) for row in rows])
    start = 0
    for rows, (table, kept) in zip(samples, tables, strict=True):
        table[rows] = read[start : start + len(rows)]
        start += len(rows)
        numbers = {row: each for row, each in kept.items() if isinstance(each, list)}
        if numbers:
            table[list(numbers)] = list(numbers.values())


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
