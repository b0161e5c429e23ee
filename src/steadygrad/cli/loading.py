"""Turn ``FILE.py:callable`` or ``package.module:callable`` into a training set-up. The file is executed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from steadygrad.errors import LoadError, SetupError, SteadygradError
from steadygrad.training import TrainingSetup, register_by_value

__all__ = ["KerasModel", "load_callable", "load_checked", "load_setup"]

WANTED = "a TrainingSetup or a tuple (model, batch, loss)"


class KerasModel(NamedTuple):
    """A compiled Keras model and one batch: ``(x, y)`` or ``(x, y, sample_weight)``."""

    model: Any
    batch: tuple[Any, ...]


def load_setup(target: str) -> TrainingSetup:
    """Import ``target`` and call it.

    Args:
        target: ``FILE.py:callable`` or ``package.module:callable``. The callable takes no arguments and returns a
            :class:`TrainingSetup` or a tuple ``(model, batch, loss)``.

    Raises:
        LoadError: If file, module or callable do not exist, or the callable returns something else.
        SetupError: If the file or the callable raises.
    """
    loaded = load_checked(target)
    if isinstance(loaded, KerasModel):
        raise LoadError(
            f"{target}: expected {WANTED}, got a Keras model. `steadygrad check` judges Keras models; only PyTorch "
            "models are treated."
        )
    return loaded


def load_checked(target: str) -> TrainingSetup | KerasModel:
    """Import ``target`` and call it, as :func:`load_setup` does; it may give a Keras model too.

    A Keras model comes as a tuple of the compiled model and one batch, ``(model, (x, y))``.

    Raises:
        LoadError: If file, module or callable do not exist, or the callable returns something else.
        SetupError: If the file or the callable raises.
    """
    function = load_callable(target)
    try:
        made = function()
    except SteadygradError:
        raise
    except (Exception, SystemExit) as error:
        file = sys.modules[function.__module__].__file__
        raise SetupError(f"{target}: the callable failed with {_told(error, file)}") from error
    return _setup(made, target)


def load_callable(target: str) -> Any:
    """Import ``FILE.py:callable`` or ``package.module:callable`` and return the callable.

    Raises:
        LoadError: If file, module or callable do not exist.
        SetupError: If the file raises.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise LoadError(
            f"{target}: expected FILE.py:callable or package.module:callable. Name a callable after a colon."
        )
    is_file = place.endswith(".py") or os.sep in place
    return _callable(_load_file(Path(place)) if is_file else _load_module(place), place, name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file() or path.suffix != ".py":
        raise LoadError(f"{path}: expected a Python file, found none. {_nearest_file(path)}")
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem
    while name in sys.modules:  # a file may be called as a module that is loaded already
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    register_by_value(module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SetupError(f"{path}: running it failed with {_told(error, str(path))}") from error
    return module


def _load_module(place: str) -> ModuleType:
    missing = LoadError(f"{place}: expected an importable module, found none. For a file write {place}.py:callable.")
    if not all(part.isidentifier() for part in place.split(".")):
        raise missing
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise missing from error
        file = os.path.join(*place.split(".")) + ".py"
        raise SetupError(f"{place}: importing it failed with {_told(error, file)}") from error


def _told(error: BaseException, file: str | None) -> str:
    """Return what an error says, and the last line of ``file`` that it came through."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or '').name}, line {error.lineno})"
    message = (str(error).strip().splitlines() or ["no message"])[0]
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file and Path(frame.filename).resolve() == Path(file).resolve()]
    return f"{type(error).__name__}: {message}" + (f" (line {lines[-1]})" if lines else "")


def _callable(module: ModuleType, place: str, name: str) -> Any:
    function = getattr(module, name, None)
    if callable(function):
        return function
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"It defines {', '.join(names[:5]) or 'none'}."
    found = "none" if function is None else f"{type(function).__name__}"
    raise LoadError(f"{place}: expected a callable {name!r}, found {found}. {hint}")


def _setup(made: Any, target: str) -> TrainingSetup | KerasModel:
    if isinstance(made, TrainingSetup):
        return made
    keras = sys.modules.get("keras")  # who gives a Keras model has imported it
    if keras is not None and isinstance(made, tuple) and made and isinstance(made[0], keras.Model):
        if len(made) == 2 and isinstance(made[1], tuple) and len(made[1]) in (2, 3):
            return KerasModel(*made)
        raise LoadError(
            f"{target}: expected a compiled Keras model with one batch, got another tuple. Return (model, (x, y)), "
            "sample weights after them if there are any."
        )
    if isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], nn.Module) and callable(made[2]):
        model, batch, loss = made
        return TrainingSetup(model, loss, train=[batch])
    got = f"({', '.join(type(item).__name__ for item in made)})" if isinstance(made, tuple) else type(made).__name__
    raise LoadError(f"{target}: expected {WANTED}, got {got}. Return one of them from the callable.")


def _nearest_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    near = get_close_matches(path.name, [entry.name for entry in folder.glob("*.py")], n=1)
    return f"Did you mean {folder / near[0]}?" if near else f"There is no such file in {folder.resolve()}."
