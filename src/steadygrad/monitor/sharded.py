"""Sums over the ranks that hold the shards of a parameter (FSDP2); one collective a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Sums = list[list[float]]
__all__ = ["group_of", "have_ranks", "sum_over_shards"]


def have_ranks() -> bool:
    """Whether processes train together."""
    return dist.is_available() and dist.is_initialized()


def group_of(parameters: Sequence[Tensor]) -> Any:
    """Return the process group over which the first sharded parameter is split; None if none is."""
    if not have_ranks():
        return None
    for parameter in parameters:
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None:
            split = [d for d, placement in enumerate(parameter.placements) if placement.is_shard()]  # type: ignore[attr-defined]
            if split:
                return mesh.get_group(split[-1])  # HSDP replicates over the first dimension and splits over the last
    return None


def sum_over_shards(parameters: Sequence[Tensor], sums: Tensor | Sums) -> Tensor | Sums:
    """Add sums of shape ``(facts, parameters)`` over the ranks, for the sharded parameters alone; NaN counts as 0."""
    group = group_of(parameters)
    if group is None:
        return sums
    blocks = torch.as_tensor(sums)
    sharded = torch.tensor([_is_sharded(parameter) for parameter in parameters], device=blocks.device)
    mine = torch.where(sharded, blocks.nan_to_num(), 0.0)
    dist.all_reduce(mine, group=group)
    return torch.where(sharded & ~blocks.isnan(), mine, blocks)


def _is_sharded(parameter: Tensor) -> bool:
    return any(placement.is_shard() for placement in getattr(parameter, "placements", ()))
