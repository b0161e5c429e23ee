"""Turn what the user's code raises into one sentence that says where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from steadygrad.errors import SetupError, SteadygradError

__all__ = ["blamed", "describe"]


@contextmanager
def blamed(what: str, *values: Any) -> Iterator[None]:
    """Run the user's code; turn its exceptions into a :class:`SetupError` that begins with ``what``.

    Args:
        what: Where and what failed: ``"optimizer: step failed"``.
        values: What the code was called with; the sentence gives their shapes.
    """
    try:
        yield
    except SteadygradError:
        raise
    except Exception as error:
        on = f" on {' and '.join(map(describe, values))}" if values else ""
        lines = str(error).strip().splitlines()
        raise SetupError(f"{what}{on}: {type(error).__name__}: {lines[0] if lines else 'no message'}") from error


def describe(value: Any) -> str:
    """Say shape and dtype of what a batch or an output holds."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        inside = [describe(item) for item in value[:4]] + (["..."] if len(value) > 4 else [])
        return "(" + ", ".join(inside) + ")"
    return type(value).__name__
