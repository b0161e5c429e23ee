"""Parameters on disk, to look at a network as it stood: safetensors of our own, and files that others wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import DataFileError, SetupError
from steadygrad.monitor.activation_tap import inner_model

__all__ = ["checkpoint_at", "load_checkpoint", "save_checkpoint", "state_size"]

FOLDER, SUFFIX = "checkpoints", ".safetensors"
# Under which names scripts keep a model's parameters beside other things.
INNER_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network")


def state_size(models: Mapping[str, nn.Module]) -> int:
    """Return how many bytes the parameters and buffers of models take."""
    parts = [part for model in models.values() for part in inner_model(model).state_dict().values()]
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))


def save_checkpoint(run: Path, models: Mapping[str, nn.Module], step: int) -> Path:
    """Write the parameters and buffers of models, by the names that the history has for their layers.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors import SafetensorError  # slow to import, and needed only now
    from safetensors.torch import save_file

    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}" if name else key: tensor.detach().cpu().clone().contiguous()
        for name, model in models.items()
        for key, tensor in inner_model(model).state_dict().items()
        if isinstance(tensor, Tensor)
    }
    path = folder / f"step-{step:09d}{SUFFIX}"
    try:
        save_file(tensors, path.with_suffix(".part"))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    os.replace(path.with_suffix(".part"), path)
    return path


def checkpoint_at(run: Path, step: int | None) -> Path:
    """Return the checkpoint of a run at a step or the last one before it; of the end without a step.

    Raises:
        DataFileError: If there is none.
    """
    paths = sorted((run / FOLDER).glob(f"step-*{SUFFIX}"))
    steps = [int(path.stem.removeprefix("step-")) for path in paths]
    early = [path for path, made in zip(paths, steps, strict=True) if step is None or made <= step]
    if not early:
        found = f"those at steps {', '.join(map(str, steps))}" if steps else "none"
        raise DataFileError(
            f"{run}: expected a checkpoint{'' if step is None else f' at step {step} or before'}, got {found}. "
            "steadygrad watch writes one at alarms and at the end, and more with --checkpoint-every."
        )
    return early[-1]


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Overwrite a model's parameters with those of a checkpoint; nothing in the file is executed.

    A prefix that all names of the file share (``module.``, ``_orig_mod.``, a model's name in a run) is left out.

    Args:
        model: Of the shapes that the file holds.
        path: Safetensors, or a state dict as ``torch.save`` writes it, alone or within a dict.

    Raises:
        DataFileError: If the file holds no parameters.
        SetupError: If they do not fit the model.
    """
    held, wanted = _read(path), inner_model(model).state_dict()
    first = next(iter(wanted), "")
    prefixes = sorted({key.removesuffix(first) for key in held if key.endswith(first)})
    fitting = [prefix for prefix in prefixes if all(prefix + key in held for key in wanted)]
    if not wanted or not fitting:
        raise SetupError(
            f"{path}: expected the parameters {', '.join([*wanted][:3])} ..., got {', '.join(sorted(held)[:3])} .... "
            "Name the callable that builds the network that was trained."
        )
    # Of several models in a file one may have the same names, and another the same shapes too.
    alike = [
        prefix for prefix in fitting if all(held[prefix + key].shape == part.shape for key, part in wanted.items())
    ]
    prefix = (alike or fitting)[0]
    state = {key: held[prefix + key] for key in wanted}
    try:
        inner_model(model).load_state_dict(state)
    except RuntimeError as error:
        raise SetupError(f"{path}: expected the network that was trained, got another: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        data: Any = load_file(path) if path.suffix == SUFFIX else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise DataFileError(f"{path}: expected a checkpoint, got {error}.") from error
    except Exception as error:  # torch raises many kinds, and tells how to run foreign code: not here
        raise DataFileError(
            f"{path}: expected a state dict, got {type(error).__name__}. Save model.state_dict(), not the model."
        ) from error
    for key in INNER_KEYS:
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    tensors = {key: value for key, value in data.items() if isinstance(value, Tensor)} if isinstance(data, dict) else {}
    if not tensors:
        raise DataFileError(f"{path}: expected a state dict, got {type(data).__name__} without tensors.")
    return tensors
