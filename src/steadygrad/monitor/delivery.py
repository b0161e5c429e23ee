"""Hand over what looks gave: from a device by asynchronous copies, and of looks in a row some at once.

Nothing waits for a device. What is done with a look's numbers is short, but its code has left the caches by the time
of the next look: eight looks in a row cost hardly more than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Delivery"]


class Delivery:
    """A queue of looks whose numbers are under way or wait for others."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[torch.cuda.Event | None, list[Any], Callable[..., None]]] = deque()
        self._busy = False

    def send(self, numbers: Sequence[Any], finish: Callable[..., None]) -> None:
        """Call ``finish`` later on with ``numbers``, tensors among them as arrays on the host."""
        if not any(isinstance(each, Tensor) and each.is_cuda for each in numbers):
            self._waiting.append((None, list(numbers), finish))
            return
        hosts = [_on_its_way(each) if isinstance(each, Tensor) and each.is_cuda else each for each in numbers]
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((event, hosts, finish))

    def poll(self, wait: bool = False, hold: int = 0) -> None:
        """Hand over what has arrived, in order, if more than ``hold`` looks are there; with ``wait`` all of them."""
        if self._busy or len(self._waiting) <= hold:  # busy if a sink that is being told asks for more
            return
        self._busy = True
        try:
            while self._waiting:
                event, numbers, finish = self._waiting[0]
                if event is not None and wait:
                    event.synchronize()
                elif event is not None and not event.query():
                    return
                self._waiting.popleft()
                finish(*(np.array(each.cpu().numpy()) if isinstance(each, Tensor) else each for each in numbers))
        finally:
            self._busy = False


def _on_its_way(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
