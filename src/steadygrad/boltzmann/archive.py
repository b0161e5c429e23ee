"""Fitted estimators on disk: one safetensors file whose header holds the settings as JSON, nothing pickled."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from steadygrad.errors import DataFileError

__all__ = ["read_archive", "settings_from", "settings_of", "under", "write_archive"]

FORMAT = 1
_KEY = "steadygrad.boltzmann"


def write_archive(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a file in one move: a reader sees the old one or the whole new one."""
    from safetensors.torch import save_file

    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    os.close(handle)
    try:
        kept = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        save_file(kept, name, metadata={_KEY: json.dumps({"format": FORMAT, **about})})
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_archive(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the settings of a file.

    Args:
        path: What ``save`` wrote.
        kind: Name of the class that has to be in it.

    Raises:
        DataFileError: If the file is missing, damaged, or holds something else.
    """
    from safetensors import safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
    except Exception as error:  # safetensors raises classes of its own
        raise DataFileError(
            f"{path}: expected a {kind} that was saved here, got {type(error).__name__}: {error}. Save it again."
        ) from error
    if about.get("format") != FORMAT or about.get("class") != kind:
        raise DataFileError(
            f"{path}: expected a {kind} of format {FORMAT}, got a {about.get('class')} of format "
            f"{about.get('format')}. "
            "Load it with the class that saved it."
        )
    return tensors, about


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries below a prefix, without it."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}


def settings_of(estimator: Any) -> dict[str, Any]:
    """Return the settings as JSON can hold them: schedules as pairs, no callbacks, no random states."""
    settings = estimator.get_params(deep=False)
    settings["callbacks"] = None
    if not isinstance(settings["random_state"], (int, np.integer, type(None))):
        settings["random_state"] = None
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
    return {name: {"schedule": list(v.items())} if isinstance(v, Mapping) else v for name, v in plain.items()}


def settings_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`settings_of`."""
    return {k: dict(v["schedule"]) if isinstance(v, dict) and "schedule" in v else v for k, v in settings.items()}
