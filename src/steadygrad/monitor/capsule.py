"""A broken step on disk: parameters, buffers and the batch as safetensors, the rest as JSON; no code, no pickle."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import DataFileError, NotApplicableError, SetupError
from steadygrad.monitor.activation_tap import inner_model
from steadygrad.monitor.forensics import Call, find_producer
from steadygrad.records import Finding, to_json, write_whole

__all__ = ["capsule_size", "replay", "save_capsule"]

TENSORS, FACTS = "tensors.safetensors", "capsule.json"


def capsule_size(model: nn.Module, call: Call) -> int:
    """Return how many bytes the tensors of a capsule will take."""
    tensors: list[Tensor] = []
    _encode((call.args, dict(call.kwargs)), tensors)
    parts = [*inner_model(model).state_dict().values(), *tensors, *(seed for seed in call.seeds if seed is not None)]
    return sum(part.numel() * part.element_size() for part in parts)


def save_capsule(folder: Path, model: nn.Module, call: Call, step: int, findings: Sequence[Finding]) -> None:
    """Write one call of a model, its parameters and what came back to it.

    Raises:
        NotApplicableError: If an argument of the call is neither a tensor nor plain data.
        OSError: If the folder cannot be written.
    """
    from safetensors.torch import save_file  # slow to import, and needed only when something broke

    inputs: list[Tensor] = []
    structure = _encode({"args": list(call.args), "kwargs": dict(call.kwargs)}, inputs)
    tensors = {f"state/{name}": tensor for name, tensor in inner_model(model).state_dict().items()}
    tensors |= {f"input/{place}": tensor for place, tensor in enumerate(inputs)}
    tensors |= {f"seed/{place}": seed for place, seed in enumerate(call.seeds) if seed is not None}
    tensors["random_state"] = call.random_state
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    facts = {
        "step": step,
        "call": structure,
        "seeds": len(call.seeds),
        "findings": list(findings),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    write_whole(folder / FACTS, to_json(facts))


def replay(folder: Path, model: nn.Module) -> tuple[list[Finding], dict[str, Any]]:
    """Make the call of a capsule again with a model of the same shapes, whose parameters are overwritten.

    Returns:
        The findings of this time, and the facts of the capsule, with those of the first time.

    Raises:
        DataFileError: If the folder holds no capsule.
        SetupError: If the model does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        call = _decode(facts["call"], tensors)
        seeds = [tensors.get(f"seed/{place}") for place in range(facts["seeds"])]
        random_state = tensors["random_state"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataFileError(
            f"{folder}: expected a capsule, got {error}. A monitor with capsules= writes one."
        ) from error
    state = {name.removeprefix("state/"): tensor for name, tensor in tensors.items() if name.startswith("state/")}
    try:
        inner_model(model).load_state_dict(state)
    except RuntimeError as error:
        raise SetupError(f"{folder}: expected the model that broke, got another: {error}") from error
    return find_producer(model, Call(tuple(call["args"]), call["kwargs"], random_state, seeds)), facts


def _encode(value: Any, tensors: list[Tensor]) -> Any:
    """Turn a nest of arguments into plain data that refers to ``tensors`` by number."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": {str(key): _encode(item, tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise NotApplicableError(
        f"capsule: expected arguments that are tensors or plain data, got {type(value).__name__}. "
        "Pass the model its tensors to have its calls kept."
    )


def _decode(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, inside),) = value.items()
    if kind == "tensor":
        return tensors[f"input/{inside}"]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in inside.items()}
    if kind == "value":
        return inside
    items = [_decode(item, tensors) for item in inside]
    return items if kind == "list" else tuple(items)
