"""Read what each layer of one model gives, and the gradient that comes back to it, by forward hooks and tensor hooks.

No full-backward hooks: they raise on in-place modules and cut compiled graphs. On a CPU numbers are exact and go to
the host at once; on other devices, and in compiled code, they are written into one preallocated tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import exact_norm
from steadygrad.monitor.optimizer_tap import inert
from steadygrad.records import Role
from steadygrad.signals import batch_deviation, moments
from steadygrad.signals.layers import RECTIFIERS, SATURATION_BOUNDS, canonical, kind_of, plain_name, role_of
from steadygrad.signals.moments import share_outside

__all__ = ["COLUMNS", "ActivationTap", "Watch", "inner_model"]

COLUMNS = (
    "output_rms",
    "output_mean",
    "output_abs_max",
    "output_signal",
    "zero_fraction",
    "dead_fraction",
    "saturated_fraction",
    "output_nonfinite",
    "output_numel",
    "output_grad_rms",
    "output_grad_nonfinite",
)
GRAD = COLUMNS.index("output_grad_rms")
NAN = float("nan")
SAFE = (1e-12, 1e15)  # sums and squares of entries within are far from the ends of float32


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


def _make_inert() -> Callable[..., None]:
    return inert


class _ForwardHook:
    """Hand a layer's output to its tap in the step of a look; a copied or pickled model gets an inert one."""

    __slots__ = ("activates", "bounds", "rectifier", "row", "tap", "watch")

    def __init__(self, tap: ActivationTap, row: int, module: nn.Module) -> None:
        kind = canonical(kind_of(module))
        self.tap, self.row, self.watch = tap, row, tap.watch
        self.activates = role_of(module) in (Role.ACTIVATION, Role.OTHER)  # zeros of others tell nothing
        self.rectifier, self.bounds = kind in RECTIFIERS, SATURATION_BOUNDS.get(kind)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.watch.due or not torch.is_grad_enabled():
            return
        if torch.compiler.is_compiling():
            self.tap.traced(self, output)
        else:
            self.tap.seen(self, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inert, ()


class ActivationTap:
    """Statistics of the outputs of a model's layers: those with parameters of their own, and all leaf modules.

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
                module, torch.jit.ScriptModule
            ):
                self.names.append(plain_name(name) or kind_of(module))
                modules.append(module)
        self.roles: list[Role] = [role_of(module) for module in modules]
        first = next(inner_model(model).parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        self.table = torch.full((len(modules), len(COLUMNS)), NAN, dtype=torch.float64, device=device)
        self._host = self.table.numpy() if device.type == "cpu" else None
        self._hooks = [
            module.register_forward_hook(_ForwardHook(self, row, module)) for row, module in enumerate(modules)
        ]

    def detach(self) -> None:
        """Take all hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> Tensor:
        """Return a copy of the table and forget what was seen."""
        taken = self.table.clone()
        self.table.fill_(NAN)
        return taken

    def seen(self, hook: _ForwardHook, output: Any) -> None:
        """Measure an output in eager code."""
        if self.watch.muted:
            return
        try:
            tensor = _floating(output)
            if tensor is None or not tensor.numel():
                return
            if self._host is None or tensor.device.type != "cpu":
                self._write(hook, tensor)
            else:
                self._host[hook.row] = _exact(hook, tensor)
                if tensor.requires_grad:
                    tensor.register_hook(lambda grad, row=hook.row: self._seen_grad(row, grad))
        except Exception as error:
            self._on_fault(error)

    def traced(self, hook: _ForwardHook, output: Any) -> None:
        """Measure an output in compiled code; no exception may be caught here, and no number read."""
        tensor = _floating(output)
        if tensor is not None:
            self._write(hook, tensor)

    def _seen_grad(self, row: int, grad: Tensor) -> None:
        try:
            norm, bad = exact_norm(grad)
            assert self._host is not None
            self._host[row, GRAD:] = norm / max(grad.numel() - bad, 1) ** 0.5, bad
        except Exception as error:
            self._on_fault(error)

    def _write(self, hook: _ForwardHook, tensor: Tensor) -> None:
        """Write the statistics of an output into the table by tensor operations alone."""
        table, row = self.table, hook.row
        table[row, :GRAD].copy_(_by_tensors(hook, tensor.detach()))
        if tensor.requires_grad:
            tensor.register_hook(lambda grad: _write_grad(table, row, grad))


def _floating(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := _floating(item)) is not None), None)


@torch.no_grad()
def _exact(hook: _ForwardHook, tensor: Tensor) -> list[float]:
    """Return the statistics of an output on a CPU, by as few passes as will do."""
    size, batch = tensor.numel(), tensor.shape[0] if tensor.dim() else 1
    norm, bad = exact_norm(tensor)
    rms = norm / max(size - bad, 1) ** 0.5
    if bad or not SAFE[0] < rms < SAFE[1] or tensor.dtype not in (torch.float32, torch.float64):
        return _careful(hook, tensor)
    mean, peak, dead = tensor.sum().item() / size, tensor.amax().item(), NAN
    if hook.rectifier:
        dead = _dead(tensor).item()
    peak = max(peak, -tensor.amin().item())
    signal: float | None = None
    if batch > 1:
        shared = exact_norm(tensor.mean(0))[0] ** 2 * batch / size
        # Where samples hardly differ the difference drowns in rounding: take the deviations one by one.
        signal = (rms**2 - shared) ** 0.5 if rms**2 - shared > 1e-3 * rms**2 else batch_deviation(tensor)
    # By signs, and not count_nonzero, which takes twenty times as long.
    zeros = 1.0 - tensor.sign().abs_().sum().item() / size if hook.activates else NAN
    saturated = share_outside(tensor, *hook.bounds) if hook.bounds else NAN
    return [rms, mean, peak, NAN if signal is None else signal, zeros, dead, saturated, 0.0, size, NAN, NAN]


def _careful(hook: _ForwardHook, tensor: Tensor) -> list[float]:
    """The same for an output with extreme or non-finite entries."""
    read, signal = moments(tensor), batch_deviation(tensor)
    signal = NAN if signal is None else signal
    dead = _dead(tensor).item() if hook.rectifier else NAN
    saturated = share_outside(tensor, *hook.bounds) if hook.bounds else NAN
    zeros = read.zero_fraction if hook.activates else NAN
    return [read.rms, read.mean, read.abs_max, signal, zeros, dead, saturated, read.nonfinite, read.numel, NAN, NAN]


def _dead(output: Tensor) -> Tensor:
    """Return the share of units that are zero for every sample: along dimension 1 of images, else the last."""
    unit = 1 if output.dim() > 3 else output.dim() - 1
    others = [dimension for dimension in range(output.dim()) if dimension != unit]
    alive = (output.amax(others) != 0) | (output.amin(others) != 0) if others else output != 0
    return 1.0 - alive.double().mean()


def _by_tensors(hook: _ForwardHook, tensor: Tensor) -> Tensor:
    finite = tensor.isfinite()
    values = torch.where(finite, tensor, 0.0).double()
    count = finite.sum().double().clamp(min=1.0)
    nothing = torch.full((), NAN, dtype=torch.float64, device=tensor.device)
    signal = nothing
    if tensor.dim() > 0 and tensor.shape[0] > 1:
        shifted = values - values[:1]
        signal = (shifted - shifted.mean(0)).square().mean().sqrt()
    saturated = nothing
    if hook.bounds:
        saturated = ((values <= hook.bounds[0]) | (values >= hook.bounds[1])).double().mean()
    return torch.stack(
        [
            (values.square().sum() / count).sqrt(),
            values.sum() / count,
            values.abs().amax(),
            signal,
            (tensor == 0).sum() / count if hook.activates else nothing,
            _dead(tensor) if hook.rectifier else nothing,
            saturated,
            tensor.numel() - finite.sum().double(),
            torch.full((), float(tensor.numel()), dtype=torch.float64, device=tensor.device),
        ]
    )


def _write_grad(table: Tensor, row: int, grad: Tensor) -> None:
    finite = grad.isfinite()
    count = finite.sum().double()
    rms = (torch.where(finite, grad, 0.0).double().square().sum() / count.clamp(min=1.0)).sqrt()
    table[row, GRAD:].copy_(torch.stack([rms, grad.numel() - count]))
