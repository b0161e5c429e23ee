"""What the estimators share: reading data of every form, blocks of rows, progress, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from steadygrad.boltzmann.archive import read_archive, write_archive
from steadygrad.boltzmann.sources import ArraySource, Source, StreamSource, is_stream
from steadygrad.errors import UsageError

__all__ = ["Callback", "Estimator", "draw_seed", "progress", "whole"]

Callback = Callable[[Any, Mapping[str, float]], None]
"""``callback(estimator, record)`` after each complete epoch."""

_BLOCK = 1024  # rows at a time outside of training


class Estimator(BaseEstimator):
    """Base of the estimators of this package."""

    def _read(self, X: Any, reset: bool) -> Source:
        """Return data of any form as a source, after checking width and form."""
        if is_stream(X):
            source = StreamSource.of(X)
            if reset:
                self.n_features_in_ = source.features
            elif source.features != self.n_features_in_:
                raise UsageError(
                    f"{type(self).__name__}: expected {self.n_features_in_} features, got {source.features}. "
                    "Pass data like those it was fitted on."
                )
            return source
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        kind = getattr(getattr(X, "dtype", None), "kind", "")
        kept = kind in ("b", "i", "u")  # bytes of images stay bytes until a batch is read
        dtype = None if kept else [np.float64, np.float32]
        return ArraySource(validate_data(self, X, accept_sparse="csr", dtype=dtype, reset=reset))

    def _map(self, X: Any, change: Callable[[Tensor], Tensor], device: torch.device) -> np.ndarray:
        """Apply ``change`` to blocks of rows; float64 rows give float64, others float32."""
        check_is_fitted(self)
        source = self._read(X, reset=False)
        dtype = np.float64 if isinstance(source, ArraySource) and source.array.dtype == np.float64 else np.float32
        with torch.no_grad():
            parts = [change(batch.to(device)).cpu().numpy().astype(dtype) for batch in source.batches(_BLOCK)]
        return np.concatenate(parts)

    def save(self, path: str | os.PathLike[str], note: Mapping[str, Any] | None = None) -> None:
        """Write the fitted estimator, and all that is needed to go on training exactly, into one file.

        The file is safetensors with the settings as JSON in its header; callbacks are left out.

        Args:
            path: The file; it is replaced in one move.
            note: What else to keep in the header, as JSON can hold it.
        """
        check_is_fitted(self)
        tensors, about = self._content()
        write_archive(path, tensors, {"class": type(self).__name__, "note": note, **about})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return what :meth:`save` wrote.

        Raises:
            DataFileError: If the file is missing, damaged or holds something else.
        """
        tensors, about = read_archive(path, cls.__name__)
        return cls._from_content(tensors, about)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise NotImplementedError

    @classmethod
    def _from_content(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Self:
        raise NotImplementedError


def draw_seed(random_state: Any) -> int:
    """Return a seed from scikit-learn's ``random_state``."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least ``least``.

    Raises:
        UsageError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, got {value!r}. Pass an int.")
    return int(value)


@contextmanager
def progress(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error while a block runs; yields ``tell(done)``."""
    if not shown:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)
