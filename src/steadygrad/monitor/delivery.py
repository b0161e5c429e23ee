"""Bring numbers from a device to the host without waiting for either: one asynchronous copy a look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Delivery"]


class Delivery:
    """A queue of copies under way. What is on the host already is handed over at once."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[torch.cuda.Event, list[Tensor], Callable[..., None]]] = deque()

    def send(self, numbers: Sequence[Tensor | np.ndarray], finish: Callable[..., None]) -> None:
        """Call ``finish`` with one array for each of ``numbers`` as soon as all have arrived."""
        if not any(isinstance(each, Tensor) and each.is_cuda for each in numbers):
            finish(*(each.cpu().numpy() if isinstance(each, Tensor) else each for each in numbers))
            return
        tensors = [each if isinstance(each, Tensor) else torch.from_numpy(each) for each in numbers]
        hosts = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for host, tensor in zip(hosts, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((event, hosts, finish))

    def poll(self, wait: bool = False) -> None:
        """Hand over what has arrived, in order; with ``wait`` all of it."""
        while self._waiting:
            event, hosts, finish = self._waiting[0]
            if wait:
                event.synchronize()
            elif not event.query():
                return
            self._waiting.popleft()
            finish(*(np.array(host.numpy()) for host in hosts))
