"""Tell which gradients arrived in a backward pass, without a hook on each parameter, and which were never zeroed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["Arrivals", "Leftover"]


class Arrivals:
    """A comparison of the gradients there are with those before the pass: another tensor, or one written to, arrived.

    Passes may lie one within the other, as reentrant checkpoints make them.
    """

    def __init__(self) -> None:
        self._passes = 0
        self._before: list[tuple[Tensor | None, int]] | None = None  # gradients, and torch's counts of writes to them

    def begin(self) -> None:
        """Take note that a backward pass starts."""
        self._passes += 1

    def end(self) -> None:
        """Take note that a backward pass has ended."""
        self._passes = max(self._passes - 1, 0)

    def clear(self) -> None:
        """Forget all that is under way: the optimizer has made its step."""
        self._passes, self._before = 0, None

    def note(self, parameters: Sequence[Tensor]) -> None:
        """Note what gradients there are, if a pass is under way."""
        if self._passes:
            grads = [parameter.grad for parameter in parameters]
            self._before = [(grad, -1 if grad is None else grad._version) for grad in grads]

    def take(self, parameters: Sequence[Tensor]) -> list[int]:
        """Return the places of parameters whose gradient arrived since the last :meth:`note`, once."""
        before, self._before = self._before or [], None
        now = [parameter.grad for parameter in parameters[: len(before)]]
        return [
            place
            for place, (grad, (old, writes)) in enumerate(zip(now, before, strict=True))
            if grad is not None and (grad is not old or grad._version != writes)
        ]


class Leftover:
    """Tell by one parameter whether backward passes add to the gradients of the step before."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor, int] | None = None  # parameter, gradient, count of writes to it
        self._zeroed = self._there = False

    def begin(self, parameter: Tensor | None) -> None:
        """Keep what gradient a step leaves behind; none of None, and none that must be waited for."""
        grad = None if parameter is None else parameter.grad
        self._kept = None if parameter is None or grad is None or not grad.is_cpu else (parameter, grad, grad._version)
        self._zeroed = self._there = False

    def look(self) -> None:
        """Look before a backward pass whether it is still there."""
        if self._kept is not None and not self._zeroed:
            parameter, kept, writes = self._kept
            grad = parameter.grad
            self._zeroed = grad is None or not bool(grad.any())
            self._there |= grad is kept and kept._version == writes and not self._zeroed

    @property
    def found(self) -> bool:
        """Whether it was, and no pass of the step found it zeroed."""
        return self._there and not self._zeroed
