"""How a fitted machine scores data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.estimator import Estimator
from steadygrad.boltzmann.likelihood import Likelihood, LogZ, log_z, pseudo_log_likelihood
from steadygrad.boltzmann.units import Units

__all__ = ["Scored"]


class Scored(Estimator):
    """The likelihoods of a fitted machine."""

    machine_: Machine
    _base: Units
    _spec: list[tuple[str, int]]
    _seed: int
    _log_z: LogZ | None

    @property
    def _device(self) -> torch.device:
        raise NotImplementedError

    def _checked(self, batch: Tensor) -> Tensor:
        raise NotImplementedError

    def log_z(self, **settings: Any) -> LogZ:
        """Return the logarithm of the partition function; see :func:`~steadygrad.boltzmann.likelihood.log_z`.

        Without settings it is computed once and kept.
        """
        check_is_fitted(self)
        bias = None if any(kind == "gaussian" for kind, _ in self._spec) else self._base.bias
        if settings:
            return log_z(self.machine_, bias, **settings)
        if self._log_z is None:
            self._log_z = log_z(self.machine_, bias, seed=self._seed)
        return self._log_z

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row in nats, shape ``(rows,)``, the same at every call.

        The partition function is the estimate of :meth:`log_z`, whether trusted or not, which shifts all rows alike;
        ask :meth:`log_likelihood` for a number to quote.
        """
        return self._log_weights(X, self.log_z().estimate)

    def _log_weights(self, X: Any, log_z: float) -> np.ndarray:
        exact = self.machine_.to(torch.float64)  # free energies are sums of hundreds of terms
        return self._map(X, lambda batch: -exact.free_energy(self._checked(batch).double()) - log_z, self._device)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the rows in nats."""
        return float(self.score_samples(X).astype(np.float64).mean())

    def log_likelihood(self, X: Any, **settings: Any) -> Likelihood:
        """Return the mean log-likelihood with its standard error, and no headline number where AIS fails.

        Args:
            X: Data.
            settings: Of :func:`~steadygrad.boltzmann.likelihood.log_z`, as ``chains=500``.
        """
        z = self.log_z(**settings)
        rows = self._log_weights(X, z.estimate).astype(np.float64)
        error = math.hypot(float(rows.std()) / math.sqrt(len(rows)), z.standard_error)
        return Likelihood(float(rows.mean()) if z.trusted else None, error, float(rows.mean()), z)

    def pseudo_log_likelihood(self, X: Any) -> np.ndarray:
        """Return the pseudo-log-likelihood of each row over all units, exactly, shape ``(rows,)``."""
        return self._map(X, lambda batch: pseudo_log_likelihood(self.machine_, self._checked(batch)), self._device)
