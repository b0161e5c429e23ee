"""Read one optimizer's gradients, weights and steps, by hooks that change none of them.

Which gradients arrived in a backward pass tells a comparison with those before it. Then they are read: before clipping,
and under accumulation as a running sum, so that the last one holds the total. Where ranks average them within the pass,
or it starts unseen, a hook on each parameter tells it instead. The optimizer's own hooks bracket the step: weights
before, weights after, and the gradient as it was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from steadygrad.monitor.arrivals import Arrivals, Leftover
from steadygrad.monitor.buffers import DeviceBuffer, HostBuffer, HostSums
from steadygrad.monitor.delivery import Delivery
from steadygrad.monitor.device_skip import flag_step, unflag_step
from steadygrad.monitor.hooks import UncopiedHook
from steadygrad.monitor.norms import WIDE, exact_norm, local, squares_of
from steadygrad.monitor.sharded import have_ranks, sum_over_shards
from steadygrad.monitor.step_read import StepRead

__all__ = ["OptimizerTap"]

SETTLED = 10  # after so many looks in a row, one of so many asks for what is written behind torch's back
Sums = Tensor | HostSums
Squares = Tensor | list[float]


@dataclass
class OptimizerTap:
    """All that is read of one optimizer.

    Attributes:
        optimizer: What is watched.
        delivery: Brings the numbers to the host.
        also: Gives what else to bring to the host with a look: the activations of the step.
        on_read: Gets a :class:`StepRead`, and ``also`` as arrays, of each step that was looked at.
        agree: Turns whether a gradient is not finite here into whether one is on any rank.
        on_broken: Called before a step whose gradient is not finite on a rank; says whether it is here.
        on_fault: Gets an exception of this tap; nothing of it reaches the training.
        layer_of: Tells which layer a parameter belongs to.
        weighs: Tells whether a parameter counts in the weights and steps of its layer.
        skip_on_device: Whether a step with a gradient that is not finite is left out where nothing may wait for it.
        parameters: What is watched of it, in the order of the entries of a read.
        due: Whether the coming step is looked at.
        steps: Steps made (or skipped by a loss scaler) since the tap was attached.
        scale: Loss scale of the step under way; None without a scaler.
        blind: Whether the tap came after the backward pass of the step under way, and saw no gradient arrive.
        wake: From so many steps on ``on_step`` is called after each, before that after those that were looked at.
    """

    optimizer: Optimizer
    delivery: Delivery
    also: Callable[[], list[Any]]
    on_read: Callable[..., None]
    agree: Callable[[OptimizerTap, bool], bool]
    on_broken: Callable[[OptimizerTap, bool], None]
    on_fault: Callable[[BaseException], None]
    on_step: Callable[[OptimizerTap], None]
    layer_of: Callable[[Tensor], Any]
    weighs: Callable[[Tensor], bool]
    skip_on_device: bool = False
    parameters: list[Tensor] = field(default_factory=list)
    due: bool = False
    steps: int = 0
    scale: Tensor | None = None
    blind: bool = False
    wake: int = 0

    def __post_init__(self) -> None:
        self._count = -1
        self._known: dict[int, int] = {}
        self._grad_hooks: dict[int, Any] = {}
        self._written: list[bool] = []
        self._direct: dict[int, tuple[float, int]] = {}
        self._buffer: HostBuffer | DeviceBuffer | None = None
        self._arrived: Tensor | None = None
        self._arrivals = Arrivals()
        self._seen_pass, self._by_hooks = True, False  # whether the look saw a backward pass; whether hooks tell
        self._has_ranks = False  # as of the last look
        self._in_a_row = 0  # looks that followed each other step by step, but for the first
        self._bad = 0  # non-finite entries among the gradients that arrived
        self._in_step = self._looking = self._stepped = self._flagged = False
        self.leftover = Leftover()
        self._smallest: Tensor | None = None
        self._matrix: Tensor | None = None  # the smallest one
        self._last_weights: tuple[Tensor, float] | None = None
        self._sentinels: list[Tensor] | None = None
        self._plain = False  # whether their gradients can be added up as they are
        self.outside = math.nan  # relative change of all weights between the last step looked at and this one
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]
        self.rescan()

    def rescan(self) -> None:
        """Hook parameters that came since: groups added later and, where a look is due, frozen ones that were freed."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not self.due and len(parameters) == self._count:
            return
        self._count = len(parameters)
        for parameter in parameters:
            index = self._known.setdefault(id(parameter), len(self.parameters))
            if index == len(self.parameters):
                self.parameters.append(parameter)
                self._buffer = self._sentinels = None
            if self.due and self._by_hooks and index not in self._grad_hooks and parameter.requires_grad:
                hook = UncopiedHook(self._on_grad, index)
                self._grad_hooks[index] = parameter.register_post_accumulate_grad_hook(hook)
        if len(self._written) < len(self.parameters):
            self._written = [False] * len(self.parameters)
            self._smallest = min(self.parameters, key=Tensor.numel)
            self._matrix = min((p for p in self.parameters if p.dim() > 1), key=Tensor.numel, default=None)

    def begin_round(self, due: bool) -> None:
        """Start the way to the next step; if it is looked at, keep a gradient to tell whether it is ever zeroed.

        Gradients have hooks only then: even idle ones take their time.
        """
        self._in_a_row = self._in_a_row + 1 if due and self.due else 0
        self.due = due
        if not due:
            self._unhook_grads()
        elif self._by_hooks and not self._grad_hooks:
            self.rescan()
        if self._in_a_row > SETTLED and isinstance(self._buffer, HostBuffer):
            self._buffer.settle()
        self.leftover.begin(self._smallest if due else None)

    def before_backward(self) -> None:
        """Before a backward pass: what parameters are there, and are the gradients of the step before still there?"""
        self._by_hooks |= have_ranks()
        self.rescan()
        self._seen_pass = True
        self._arrivals.begin()
        self._note_grads()
        self.leftover.look()

    def detach(self) -> None:
        """Take all hooks away."""
        self.due = False
        self._unflag()
        self._unhook_grads()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def after_backward(self) -> None:
        """After a backward pass: read what has arrived."""
        self._arrivals.end()
        self._note_grads()

    def _note_grads(self) -> None:
        self._read_arrived()
        if not self._by_hooks:
            self._arrivals.note(self.parameters)

    def _unhook_grads(self) -> None:
        for hook in self._grad_hooks.values():
            hook.remove()
        self._grad_hooks.clear()

    def _on_grad(self, index: int, _: Tensor) -> None:
        """Read the gradient that has just been accumulated."""
        try:
            if self.due:
                self._read_grads([index])
        except Exception as error:
            self.on_fault(error)

    def _read_arrived(self) -> None:
        """Read the gradients that arrived in the backward pass; before an optimizer within it steps, those so far."""
        if arrived := self._arrivals.take(self.parameters):
            self._read_grads(arrived)

    def _read_grads(self, arrived: Sequence[int]) -> None:
        """Read gradients that have arrived; those that an optimizer in the backward pass was faster with are None."""
        grads = {index: grad for index in arrived if (grad := self.parameters[index].grad) is not None}
        buffer = self.buffer
        for index in grads:
            self._written[index] = True
        if isinstance(buffer, HostBuffer):
            self._bad += buffer.write(list(grads), list(grads.values()))
            return
        for index, grad in grads.items():
            if not self._in_step and buffer.fits(index, grad):
                buffer.write(index, grad)
                self._direct.pop(index, None)
            else:  # in a closure the buffer holds the weights; a sparse gradient has another shape
                self._direct[index] = exact_norm(grad)

    @property
    def buffer(self) -> HostBuffer | DeviceBuffer:
        """The buffer, made when it is first needed."""
        if self._buffer is None:
            wanted = [self.weighs(parameter) for parameter in self.parameters]
            if all(parameter.device.type == "cpu" for parameter in self.parameters):
                self._buffer = HostBuffer(self.parameters, wanted)
            else:
                self._buffer = DeviceBuffer(self.parameters, wanted)
        return self._buffer

    @property
    def compiled(self) -> bool:
        """Whether compiled kernels read what is watched."""
        return isinstance(self._buffer, HostBuffer) and self._buffer.compiled is not None

    @property
    def _settled(self) -> bool:
        """Whether this look may rely on what torch notices: all but one of so many that follow each other may."""
        return self._in_a_row > SETTLED and self._in_a_row % SETTLED > 0

    @property
    def on_host(self) -> bool:
        """Whether what is watched lies on a CPU, where a number may be waited for."""
        return bool(self.parameters) and self.parameters[0].is_cpu

    def skipped(self) -> None:
        """Note that a loss scaler did not call the optimizer's step because of an overflow."""
        if self.due:
            arrived = self.buffer.arrived()
            self._send(arrived, arrived, arrived[0], arrived[0], skipped=True)
        self._finish()

    @property
    def stepped(self) -> bool:
        """Whether the optimizer's step ran since :meth:`expect`."""
        return self._stepped

    def expect(self, scale: Tensor) -> None:
        """Take note that a loss scaler is about to step with this scale."""
        self.scale, self._stepped = scale, False

    def _before(self, *_: Any) -> None:
        try:
            self._stepped = True
            if self._last_weights is not None:
                self._compare_weights()
            if self.due:
                self._look_before()
            self._in_step = True
            if self.skip_on_device and self.scale is None and not self.on_host:
                self._flagged = flag_step(self.optimizer)
            here = self.scale is None and self._is_broken()
            anywhere = self.agree(self, here) if self._has_ranks else here
        except Exception as error:
            self.on_fault(error)
            return
        if anywhere:
            self.on_broken(self, here)

    def _look_before(self) -> None:
        self._read_arrived()
        self._looking, self._has_ranks, buffer = True, have_ranks(), self.buffer
        if isinstance(buffer, DeviceBuffer):
            self._arrived = buffer.arrived()
        buffer.keep(self.parameters, trust=self._settled)

    def _after(self, *_: Any) -> None:
        try:
            self._unflag()
            if self.due and self._looking:
                self._look_after()
            self._finish()
        except Exception as error:
            self.on_fault(error)

    def _look_after(self) -> None:
        self._by_hooks |= not self._seen_pass  # a backward pass that was called by another name
        buffer = self.buffer
        weights, moved = buffer.compare(self.parameters)
        grads = [parameter.grad for parameter in self.parameters]
        if isinstance(buffer, HostBuffer):
            # Fused kernels scale gradients within the step, and torch does not count it.
            fused = any(group.get("fused") for group in self.optimizer.param_groups)
            used = buffer.used(grads, trust=self._settled and not fused and self.scale is None)
            self._send(buffer.arrived(), used, weights, moved)  # a closure has brought more
            if self._matrix is not None and not self._settled:
                self._last_weights = self._matrix, _norm(self._matrix)
        else:
            assert self._arrived is not None
            self._send(self._arrived, buffer.used(grads), weights, moved)

    def _send(self, arrived: Sums, used: Sums, weights: Squares, moved: Squares, skipped: bool = False) -> None:
        """Bring the sums of a look to the host and hand them on."""
        read = StepRead(
            step=self.steps,
            skipped=skipped,
            rate=max(map(_rate, self.optimizer.param_groups), default=math.nan),
            unseen=self.blind or self.scale is not None,
            missed=[index for index, written in enumerate(self._written) if not written],
            gone=[index for index, parameter in enumerate(self.parameters) if parameter.grad is None],
            direct=dict(self._direct),
        )
        rows: Any = [*arrived, *used, weights, moved]
        rows = sum_over_shards(self.parameters, torch.stack(rows) if isinstance(arrived, Tensor) else rows)
        scale = math.nan if self.scale is None else self.scale

        def finish(rows: Any, scale: Any, *others: Any) -> None:
            numbers = np.array(rows)
            if skipped:  # no more than the gradients that arrived was there to be read
                numbers[2:] = math.nan
            read.fill(numbers, float(scale))
            self.on_read(read, *others)

        self.delivery.send([rows, scale, *self.also()], finish)

    def _compare_weights(self) -> None:
        """Compare the smallest matrix with itself right after the step looked at: did something else change it?"""
        assert self._last_weights is not None
        matrix, before = self._last_weights
        self.outside = _norm(matrix) / before - 1.0 if before else math.nan
        self._last_weights = None

    def _finish(self) -> None:
        self._in_step = self.blind = False
        self.scale, looked = None, self.due
        if looked:
            self._looking = self._seen_pass = False
            self._arrivals.clear()
            self._direct.clear()
            self._arrived = None
            self._bad = 0
            if isinstance(self._buffer, HostBuffer):
                self._buffer.clear()
            self._written = [False] * len(self.parameters)
        self.steps += 1
        if looked or self.steps >= self.wake:
            self.on_step(self)

    def _unflag(self) -> None:
        if self._flagged:
            self._flagged = False
            unflag_step(self.optimizer)

    def _is_broken(self) -> bool:
        """Whether a gradient is not finite: of all parameters in a look, else of the sentinels."""
        if not self.on_host:
            return False
        if self._looking and all(self._written):
            return self._bad > 0
        self._sentinels = self._sentinels or self._choose_sentinels()
        grads = [grad for parameter in self._sentinels if (grad := parameter.grad) is not None]
        sums = [grad.sum().item() for grad in (grads if self._plain else map(local, grads))]
        # Finite gradients of 1e38 have an infinite float32 sum: look again, exactly.
        return not math.isfinite(sum(sums)) and any(exact_norm(grad)[1] for grad in grads)

    def _choose_sentinels(self) -> list[Tensor]:
        """Return the smallest parameter of every layer.

        The gradient of a bias or gain sums over what arrives at its layer, so that it is not finite if anything there
        is not; to read all gradients before every step would cost as much as a look.
        """
        smallest: dict[Any, Tensor] = {}
        for parameter in self.parameters:
            layer = self.layer_of(parameter)
            if layer not in smallest or parameter.numel() < smallest[layer].numel():
                smallest[layer] = parameter
        self._plain = all(type(each) in (Tensor, nn.Parameter) and each.dtype in WIDE for each in smallest.values())
        return list(smallest.values())


def _norm(tensor: Tensor) -> float:
    return math.sqrt(squares_of([tensor.detach()])[0][0])


def _rate(group: dict[str, Any]) -> float:
    """Return a group's learning rate; NaN where it lies on a device, which would have to be waited for."""
    rate = group.get("lr", math.nan)
    return math.nan if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)
