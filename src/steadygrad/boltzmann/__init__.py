"""Restricted Boltzmann machines and deep belief networks: a torch core and scikit-learn estimators over it.

The estimators are loaded when they are first asked for, because scikit-learn takes its time to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadygrad.boltzmann.classifier import DBNClassifier
    from steadygrad.boltzmann.dbn import DBN
    from steadygrad.boltzmann.rbm import RBM
    from steadygrad.boltzmann.supervised import DBNRegressor

__all__ = ["DBN", "RBM", "DBNClassifier", "DBNRegressor"]

_HOMES = {"DBN": "dbn", "DBNClassifier": "classifier", "DBNRegressor": "supervised", "RBM": "rbm"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"steadygrad.boltzmann.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
