"""Every exception and warning of steadygrad.

Each exception also derives from the builtin that a caller would expect::

    SteadygradError
    ├── UsageError (ValueError)               an argument, a path or a setting is wrong          exit 2
    │   ├── ShapeError                        a tensor has the wrong shape
    │   ├── LoadError                         FILE.py:callable cannot be found or imported
    │   ├── DataFileError                     a data file is missing, truncated or corrupted
    │   └── MissingDependencyError (ImportError)   an optional package is not installed
    ├── SetupError (RuntimeError)             the user's model, loss or data failed              exit 3
    │   ├── UnsendableError                   the set-up cannot go to another process
    │   └── WorkerError                       a worker process died
    ├── StoreError (RuntimeError)             results cannot be read or stored                   exit 2
    ├── NotApplicableError (ValueError)       a remedy does not fit this set-up
    └── AlarmError (RuntimeError)             a monitor was asked to stop the training, and does
    SteadygradWarning (UserWarning)

A *broken network* is none of these: it is a :class:`~steadygrad.records.Finding`.
"""

from __future__ import annotations

__all__ = [
    "AlarmError",
    "DataFileError",
    "LoadError",
    "MissingDependencyError",
    "NotApplicableError",
    "SetupError",
    "ShapeError",
    "SteadygradError",
    "SteadygradWarning",
    "StoreError",
    "UnsendableError",
    "UsageError",
    "WorkerError",
]


class SteadygradError(Exception):
    """Base of every error that steadygrad raises on purpose."""


class UsageError(SteadygradError, ValueError):
    """An argument, a path or a setting is wrong."""


class ShapeError(UsageError):
    """A tensor has the wrong shape."""


class LoadError(UsageError):
    """``FILE.py:callable`` or ``package.module:callable`` cannot be found or imported."""


class DataFileError(UsageError):
    """A data file is missing, truncated or corrupted."""


class MissingDependencyError(UsageError, ImportError):
    """An optional package is not installed; the message holds the ``pip install`` line."""


class SetupError(SteadygradError, RuntimeError):
    """The user's callable, model, loss, optimizer or data failed or gave something unusable."""


class UnsendableError(SetupError):
    """Something cannot be sent to another process, or not be rebuilt there; the message says why."""


class WorkerError(SetupError):
    """A worker process died, as by the system's hand for want of memory."""


class StoreError(SteadygradError, RuntimeError):
    """Results cannot be read or stored; those that are stored stay."""


class NotApplicableError(SteadygradError, ValueError):
    """A remedy does not fit this set-up; the message says why."""


class AlarmError(SteadygradError, RuntimeError):
    """A monitor with ``on_alarm="raise"`` or ``on_nonfinite="raise"`` stops the training."""


class SteadygradWarning(UserWarning):
    """The category of every warning of steadygrad."""
