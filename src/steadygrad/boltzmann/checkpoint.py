"""Fitting that keeps every complete epoch on disk, so that the same call goes on after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from torch import Tensor

from steadygrad.boltzmann.archive import read_archive, settings_of
from steadygrad.boltzmann.dbn import DBN, default_layer
from steadygrad.boltzmann.sources import is_stream
from steadygrad.boltzmann.supervised import Supervised
from steadygrad.errors import DataFileError

__all__ = ["fit_and_keep", "part_of"]


def fit_and_keep(network: DBN | Supervised, X: Any, y: Any, path: str | os.PathLike[str]) -> None:
    """Fit a network and save it, keeping every complete epoch beside the file meanwhile.

    An interrupted fit leaves ``path`` as it was and ``<path>.part`` with the last complete epoch. The same call, in
    another process too, goes on from there and gives what an uninterrupted one gives.

    Args:
        network: The network; what it had learned is forgotten.
        X: Data.
        y: Targets; None for a network without, or for a stream.
        path: Where the fitted network goes.

    Raises:
        DataFileError: If ``<path>.part`` was begun with other settings or data.
    """
    part, settings = part_of(path), network.get_params(deep=False)
    note = _note(network, X, y)
    begun = _begun(part, type(network), note)

    def keep(*_: Any) -> None:
        network.save(part, note)

    rows = None if is_stream(X) else X.shape[0] if hasattr(X, "shape") else len(X)
    rbm = clone(network.rbm or default_layer(rows))
    network.set_params(rbm=rbm.set_params(callbacks=[*(rbm.callbacks or ()), keep]), warm_start=begun is not None)
    if isinstance(network, Supervised):
        network.set_params(callbacks=[*(network.callbacks or ()), keep])
    try:
        if begun is not None:
            _take_over(network, begun)
        network.fit(X, y)
        network.save(path)
        _take_over(network, type(network).load(path))  # without the callbacks that keep
    finally:
        network.set_params(**settings)
    part.unlink(missing_ok=True)


def part_of(path: str | os.PathLike[str]) -> Path:
    """Return where the state of an unfinished fit lies."""
    return Path(f"{os.fspath(path)}.part")


def _begun(part: Path, kind: type[DBN | Supervised], note: dict[str, Any]) -> DBN | Supervised | None:
    if not part.exists():
        return None
    there = read_archive(part, kind.__name__)[1]["note"]
    other = [f"{name} {there.get(name)} there, {note[name]} here" for name in note if there.get(name) != note[name]]
    if other:
        raise DataFileError(
            f"{part}: expected an unfinished fit with the same settings, got others ({'; '.join(other)}). "
            "Use the same to go on, or delete the file to begin anew."
        )
    return kind.load(part)


def _take_over(network: DBN | Supervised, other: DBN | Supervised) -> None:
    """Take what another one has learned in the place of what was there, but not its settings."""
    network.__dict__ = vars(other) | network.get_params(deep=False)


def _note(network: DBN | Supervised, X: Any, y: Any) -> dict[str, Any]:
    """Return what decides about the outcome: all settings and a digest of the data."""
    settings = settings_of(network)
    rbm = {} if network.rbm is None else {f"rbm__{name}": value for name, value in settings_of(network.rbm).items()}
    plain = [part.detach().cpu().numpy() if isinstance(part, Tensor) else part for part in (X, y)]
    digest = None if is_stream(X) else joblib.hash(plain)
    note = settings | rbm | {"rbm": None, "data": digest}
    return json.loads(json.dumps(note, default=lambda value: np.asarray(value).tolist()))  # as the file gives it back
