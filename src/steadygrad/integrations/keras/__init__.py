"""Watch and check Keras 3 models, on the torch and the TensorFlow backend."""

from steadygrad.errors import MissingDependencyError, UsageError

try:
    import keras
except ImportError as error:
    if error.name != "keras":  # by default, Keras imports TensorFlow
        raise UsageError(
            f"keras: {error}. Install the backend, or set KERAS_BACKEND=torch before Keras is imported."
        ) from error
    raise MissingDependencyError('keras: the package is not installed. pip install "steadygrad[keras]"') from error

if keras.backend.backend() not in ("torch", "tensorflow"):
    raise UsageError(
        f"keras: expected the backend torch or tensorflow, got {keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=torch before Keras is imported."
    )

from steadygrad.integrations.keras.callback import MonitorCallback
from steadygrad.integrations.keras.probe import diagnose

__all__ = ["MonitorCallback", "diagnose"]
