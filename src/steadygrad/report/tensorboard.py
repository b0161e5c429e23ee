"""The one door to TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["PREFIX", "writer_class"]

PREFIX = "steadygrad"
"""Before every tag, so that ours stand together beside the user's own."""


def writer_class() -> type[SummaryWriter]:
    """Return what writes event files into a folder, and makes the folder if it does not exist.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            'TensorBoard: tensorboard is not installed. pip install "steadygrad[tensorboard]"'
        ) from error
    return SummaryWriter
