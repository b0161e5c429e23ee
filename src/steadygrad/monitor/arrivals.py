"""Tell which gradients arrived in a backward pass, without a hook on each parameter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["Arrivals"]


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
