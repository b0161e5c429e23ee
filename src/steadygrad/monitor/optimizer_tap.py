"""Read one optimizer's gradients, weights and steps, by hooks that change none of them.

A hook on each parameter copies the gradient as it arrives (before clipping; a running sum under accumulation, so that
the last call holds the total). The optimizer's own hooks bracket the step: weights before, weights after, and the
gradient as it was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from steadygrad.monitor.delivery import Delivery
from steadygrad.monitor.norms import FlatBuffer, exact_norm, local

__all__ = ["OptimizerTap", "StepRead", "UncopiedHook", "inert"]


def inert(*args: Any, **kwargs: Any) -> None:
    """Do nothing: what a hook becomes in a copied or saved model."""


def _make_inert() -> Callable[..., None]:
    return inert


class UncopiedHook:
    """Call a function; in a copied or pickled model it does nothing."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        """Call the function."""
        self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inert, ()


@dataclass
class StepRead:
    """What one look at one optimizer's step gave: one entry a parameter, NaN where not seen.

    ``arrived``, ``used``, ``weights`` and ``moved`` are sums of squares: the gradient before clipping (still times
    ``scale``), the one the optimizer used, the weights before the step, and the step.
    """

    step: int
    arrived: np.ndarray
    used: np.ndarray
    weights: np.ndarray
    moved: np.ndarray
    nonfinite: np.ndarray
    scale: float = math.nan
    skipped: bool = False
    rate: float = math.nan


class _GradHook:
    """Hand a gradient to its tap in the step of a look; a copied or pickled model gets an inert one."""

    __slots__ = ("index", "tap")

    def __init__(self, tap: OptimizerTap, index: int) -> None:
        self.tap, self.index = tap, index

    def __call__(self, parameter: Tensor) -> None:
        if self.tap.due:
            self.tap.on_grad(self.index, parameter)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inert, ()


@dataclass
class OptimizerTap:
    """All that is read of one optimizer.

    Attributes:
        optimizer: What is watched.
        delivery: Brings the numbers to the host.
        also: Gives what else to bring to the host with a look: the activations of the step.
        on_read: Gets a :class:`StepRead`, and ``also`` as arrays, of each step that was looked at.
        on_broken: Called before a step whose gradient is not finite.
        on_fault: Gets an exception of this tap; nothing of it reaches the training.
        layer_of: Tells which layer a parameter belongs to.
        parameters: What is watched of it, in the order of the entries of a read.
        due: Whether the coming step is looked at.
        steps: Steps made (or skipped by a loss scaler) since the tap was attached.
        scale: Loss scale of the step under way; None without a scaler.
        blind: Whether the tap came after the backward pass of the step under way, and saw no gradient arrive.
    """

    optimizer: Optimizer
    delivery: Delivery
    also: Callable[[], list[Tensor]]
    on_read: Callable[..., None]
    on_broken: Callable[[OptimizerTap], None]
    on_fault: Callable[[BaseException], None]
    on_step: Callable[[OptimizerTap], None]
    layer_of: Callable[[Tensor], Any]
    parameters: list[Tensor] = field(default_factory=list)
    due: bool = False
    steps: int = 0
    scale: float | None = None
    blind: bool = False

    def __post_init__(self) -> None:
        self._known: dict[int, int] = {}
        self._hooks: list[Any] = []
        self._hooked: set[int] = set()
        self._written: list[bool] = []
        self._direct: dict[int, tuple[float, int]] = {}
        self._flat: FlatBuffer | None = None
        self._early: tuple[Tensor, list[bool]] | None = None
        self._weights: Tensor | None = None
        self._in_step = self._stepped = False
        self._probe: tuple[Tensor, Tensor] | None = None
        self.fresh = self.stale = False
        self._last_weights: tuple[Tensor, float] | None = None
        self._sentinels: list[Tensor] | None = None
        self.outside = math.nan  # relative change of all weights between the last step looked at and this one
        self._hooks.append(self.optimizer.register_step_pre_hook(self._before))
        self._hooks.append(self.optimizer.register_step_post_hook(self._after))
        self.rescan()

    def rescan(self) -> None:
        """Hook parameters that came since: groups added later, and frozen ones that were freed."""
        if not any(
            parameter.requires_grad and id(parameter) not in self._hooked
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        ):
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in self._known:
                    self._known[id(parameter)] = len(self.parameters)
                    self.parameters.append(parameter)
                    self._flat = self._sentinels = None
                if parameter.requires_grad and id(parameter) not in self._hooked:
                    hook = _GradHook(self, self._known[id(parameter)])
                    self._hooks.append(parameter.register_post_accumulate_grad_hook(hook))
                    self._hooked.add(id(parameter))
        self._written = [False] * len(self.parameters)

    def begin_round(self, due: bool) -> None:
        """Start the way to the next step; if it is looked at, keep a gradient to tell whether it is ever zeroed."""
        self.due, self.fresh, self.stale, self._probe = due, False, False, None
        if due and self.parameters:
            smallest = min(self.parameters, key=Tensor.numel)
            if smallest.grad is not None and smallest.grad.device.type == "cpu" and bool(smallest.grad.any()):
                self._probe = smallest, smallest.grad.clone()

    def note_backward(self) -> None:
        """Before a backward pass: are the gradients of the step before still there?"""
        if self._probe is not None and not self.fresh:
            parameter, kept = self._probe
            grad = parameter.grad
            if grad is None or not bool(grad.any()):
                self.fresh = True
            elif torch.equal(grad, kept):
                self.stale = True

    def detach(self) -> None:
        """Take all hooks away."""
        self.due = False
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def on_grad(self, index: int, parameter: Tensor) -> None:
        """Keep the gradient that has just been accumulated."""
        try:
            if parameter.grad is None:  # an optimizer in the backward pass was faster
                return
            grad = local(parameter.grad)
            view = self.flat.views[index]
            if grad.device.type == "cpu" or self._in_step or grad.shape != view.shape:
                self._direct[index] = exact_norm(grad)  # while it is in the cache; in a closure; if it is sparse
            else:
                view.copy_(grad)
                self._direct.pop(index, None)
            self._written[index] = True
        except Exception as error:
            self.on_fault(error)

    @property
    def flat(self) -> FlatBuffer:
        """The buffer, made when it is first needed."""
        if self._flat is None:
            self._flat = FlatBuffer(self.parameters)
        return self._flat

    def skipped(self) -> None:
        """Note that a loss scaler did not call the optimizer's step because of an overflow."""
        if self.due:
            self._send(self._early_blocks(), None, None, None, skipped=True)
        self._finish()

    @property
    def stepped(self) -> bool:
        """Whether the optimizer's step ran since :meth:`expect`."""
        return self._stepped

    def expect(self, scale: float) -> None:
        """Take note that a loss scaler is about to step with this scale."""
        self.scale, self._stepped = scale, False

    def _before(self, *_: Any) -> None:
        try:
            self._in_step = self._stepped = True
            self.delivery.poll()
            if self.due:
                self._look_before()
            elif self._last_weights is not None:
                self._compare_weights()
            broken = self.scale is None and self._is_broken()
        except Exception as error:
            self.on_fault(error)
            return
        if broken:
            self.on_broken(self)

    def _look_before(self) -> None:
        self._early = self._early_blocks()
        self._weights = self.flat.load(self.parameters)

    def _early_blocks(self) -> tuple[Tensor, list[bool]]:
        return self.flat.measure(), list(self._written)

    def _after(self, *_: Any) -> None:
        try:
            if self.due and self._early is not None:
                self._look_after()
            self._finish()
        except Exception as error:
            self.on_fault(error)

    def _look_after(self) -> None:
        assert self._early is not None
        moved = self.flat.subtract(self.parameters)
        used = self.flat.norms_of([parameter.grad for parameter in self.parameters])
        self._send(self._early, used, self._weights, moved)
        matrix = min((p for p in self.parameters if p.dim() > 1), key=Tensor.numel, default=None)
        if matrix is not None and self.flat.on_cpu:
            self._last_weights = matrix, exact_norm(local(matrix))[0]

    def _send(
        self,
        early: tuple[Tensor, list[bool]],
        used: Tensor | None,
        weights: Tensor | None,
        moved: Tensor | None,
        skipped: bool = False,
    ) -> None:
        """Bring the sums of a look to the host and hand them on in the shape of a :class:`StepRead`."""
        flat, direct, scale, step = self.flat, dict(self._direct), self.scale, self.steps
        blind = self.blind or scale is not None
        before, written = early[1], list(self._written)
        gone = [index for index, parameter in enumerate(self.parameters) if parameter.grad is None]
        rates = [float(group["lr"]) for group in self.optimizer.param_groups if "lr" in group]
        nothing = torch.full_like(early[0], math.nan)

        def finish(*blocks: np.ndarray) -> None:
            sums = [flat.per_tensor(block) for block in blocks[:4]]
            (arrived, bad), (used_, used_bad) = sums[0], sums[1]
            used_[gone] = np.nan
            for index, (norm, count) in direct.items():
                arrived[index], bad[index] = norm * norm, count
            # What came without our hook: a group just added, an optimizer in the backward pass. Nothing clipped it
            # that we know of, unless a loss scaler had it in hand.
            for index in range(len(arrived)):
                if not before[index] and index not in direct:
                    late = math.nan if written[index] or blind else used_[index]
                    arrived[index], bad[index] = late, used_bad[index]
            read = StepRead(
                step,
                arrived,
                used_,
                sums[2][0],
                sums[3][0],
                bad,
                math.nan if scale is None else scale,
                skipped or (scale is not None and bool(bad.any())),
                max(rates, default=math.nan),
            )
            self.on_read(read, *blocks[4:])

        parts = [early[0], *(nothing if part is None else part for part in (used, weights, moved))]
        self.delivery.send([*parts, *self.also()], finish)

    def _compare_weights(self) -> None:
        """Compare the smallest matrix with itself right after the step looked at: did something else change it?"""
        assert self._last_weights is not None
        matrix, before = self._last_weights
        self.outside = exact_norm(local(matrix))[0] / before - 1.0 if before else math.nan
        self._last_weights = None

    def _finish(self) -> None:
        self._in_step = False
        self._early = self._weights = None
        self._direct.clear()
        self._written = [False] * len(self.parameters)
        self.scale, self.blind = None, False
        self.steps += 1
        self.on_step(self)

    def _is_broken(self) -> bool:
        """Whether a gradient is not finite: of all parameters in a look, else of the sentinels."""
        if not self.parameters or self.parameters[0].device.type != "cpu":
            return False  # a GPU would have to be waited for
        if self._early is not None and all(self._written):
            return any(count for _, count in self._direct.values())
        if self._sentinels is None:
            self._sentinels = self._choose_sentinels()
        grads = [local(parameter.grad) for parameter in self._sentinels if parameter.grad is not None]
        if not grads:
            return False
        norms = torch._foreach_norm(grads)
        if math.isfinite(torch.stack(norms).sum().item() if len({n.dtype for n in norms}) == 1 else math.nan):
            return False
        # Finite gradients of 1e20 have an infinite float32 norm: look again, exactly.
        return any(exact_norm(grad)[1] for grad in grads)

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
        return list(smallest.values())
