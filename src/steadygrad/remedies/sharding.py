"""Gradients that are spread over processes: what is held here, and sums over what the others hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError

__all__ = ["Shards", "check_whole_units", "local_part", "shard_like", "sharded_dims"]


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor: a view of the shard of a DTensor, of others the tensor itself."""
    return tensor.to_local() if _is_dtensor(tensor) else tensor  # type: ignore[attr-defined]  # a DTensor has it


def sharded_dims(tensor: Tensor) -> frozenset[int]:
    """Return the dimensions along which a tensor is spread over processes; none for a plain tensor."""
    return frozenset(p.dim for p in _placements(tensor) if not p.is_replicate())


def check_whole_units(where: str, parameters: Iterable[Tensor]) -> None:
    """Check that no unit, a slice along dimension 0, is split over processes.

    Raises:
        NotApplicableError: If one is.
    """
    for parameter in parameters:
        if parameter.dim() > 1 and sharded_dims(parameter) - {0}:
            raise NotApplicableError(
                f"{where}: expected parameters sharded along dimension 0, so that every unit lies in one process, "
                f"got placements {tuple(_placements(parameter))} for shape {tuple(parameter.shape)}. "
                "Shard along dimension 0 or clip by a norm of whole tensors."
            )


class Shards:
    """Which of some tensors are spread over which processes; empty if all are plain."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._groups: dict[tuple[Any, int], list[int]] = {}  # (mesh, its dimension) to positions
        self._devices: dict[Any, torch.device] = {}
        for position, tensor in enumerate(tensors):
            if type(tensor) is Tensor:
                continue
            for dim, placement in enumerate(_placements(tensor)):
                if not placement.is_replicate():
                    mesh = tensor.device_mesh  # type: ignore[attr-defined]
                    self._groups.setdefault((mesh, dim), []).append(position)
                    self._devices[mesh] = local_part(tensor).device

    def sum(self, values: Tensor) -> Tensor:
        """Return ``values``, one a tensor, summed over the processes that share the tensor."""
        return self._reduced(values, "SUM")

    def max(self, values: Tensor) -> Tensor:
        """Return the largest of ``values``, one a tensor, among the processes that share the tensor."""
        return self._reduced(values, "MAX")

    def __bool__(self) -> bool:
        return bool(self._groups)

    def _reduced(self, values: Tensor, operation: str) -> Tensor:
        for (mesh, dim), where in self._groups.items():
            part = values[where].to(self._devices[mesh])
            torch.distributed.all_reduce(
                part, getattr(torch.distributed.ReduceOp, operation), group=mesh.get_group(dim)
            )
            values = values.index_copy(0, torch.tensor(where), part.to(values.device))
        return values


def _is_dtensor(tensor: Tensor) -> bool:
    # By its attributes: importing DTensor costs half a second, and who has one has imported it.
    return type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "device_mesh")


def _placements(tensor: Tensor) -> tuple[Any, ...]:
    if not _is_dtensor(tensor):
        return ()
    placements: tuple[Any, ...] = tensor.placements  # type: ignore[attr-defined]
    if any(placement.is_partial() for placement in placements):
        raise NotApplicableError(
            f"gradients: expected reduced gradients, got a DTensor with placements {placements}. "
            "Redistribute it to Shard or Replicate before the optimizer's step."
        )
    return placements


def shard_like(whole: Tensor, tensor: Tensor) -> Tensor:
    """Return the part of ``whole``, equal in all processes, that lies where this process's part of ``tensor`` lies."""
    if not _is_dtensor(tensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = tensor.device_mesh, _placements(tensor)  # type: ignore[attr-defined]
    return local_part(distribute_tensor(whole, mesh, placements, src_data_rank=None))
