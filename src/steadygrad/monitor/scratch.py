"""Room that stays in the cache, for what is read once and forgotten: fresh memory costs more than the arithmetic."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from steadygrad.monitor.norms import WIDE

__all__ = ["PART", "room"]

PART = 2**16  # entries that lie in the cache together with what they are made from


class _Scratch(threading.local):
    """Each thread has its own."""

    def __init__(self) -> None:
        self.rooms = {dtype: torch.empty(PART, dtype=dtype) for dtype in WIDE}


_scratch = _Scratch()


def room(size: int, dtype: torch.dtype) -> Tensor:
    """Return flat room for so many entries, good until the next call; up to ``PART`` it is the same each time."""
    return _scratch.rooms[dtype][:size] if size <= PART else torch.empty(size, dtype=dtype)
