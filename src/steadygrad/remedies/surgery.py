"""Find places in a network by its blueprint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.records import Blueprint, Layer, Role
from steadygrad.signals.blueprint import plain_model
from steadygrad.training import Batch, preserved, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = [
    "WEIGHTED",
    "activation_behind",
    "head_weights",
    "input_shapes",
    "is_module_call",
    "module_of",
    "readers",
    "replace_module",
    "sources_through",
    "weightless_before",
]

WEIGHTED = frozenset({Role.LINEAR, Role.RECURRENT, Role.EMBEDDING, Role.ATTENTION})


def module_of(model: nn.Module, layer: Layer) -> nn.Module:
    """Return the module that a blueprint's layer belongs to; for a functional layer, the one whose forward calls it."""
    return plain_model(model).get_submodule(layer.module)


def is_module_call(model: nn.Module, layer: Layer) -> bool:
    """Whether a layer is a module of its own, not a function called inside of another one's forward."""
    return type(module_of(model, layer)).__name__ == layer.kind


def head_weights(blueprint: Blueprint) -> frozenset[int]:
    """Return the positions of the weight layers that make the model's output, head activation or not."""
    if blueprint.head_layer is None:
        return frozenset()
    if blueprint.layers[blueprint.head_layer].role in WEIGHTED:
        return frozenset({blueprint.head_layer})
    return sources_through(blueprint, blueprint.head_layer)


def activation_behind(blueprint: Blueprint, position: int) -> Layer | None:
    """Return the activation that ``blueprint.layers[position].activation`` speaks of."""
    kind = blueprint.layers[position].activation
    for other in range(position + 1, len(blueprint.layers)) if kind else ():
        layer = blueprint.layers[other]
        if layer.role is Role.ACTIVATION and layer.kind == kind and position in sources_through(blueprint, other):
            return layer
    return None


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put ``new``, which may hold ``old``, wherever ``old`` stands in ``model``; return the model, or ``new`` for it.

    For changes that wrap. All others belong into a :class:`~steadygrad.remedies.plan.Plan`, which can be undone.
    """
    new.train(old.training)
    if model is old:
        return new
    for name in [name for name, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(name, new)
    return model


def sources_through(blueprint: Blueprint, position: int) -> frozenset[int]:
    """Return the weight layers whose outputs reach a layer with nothing but weightless layers between."""
    return frozenset(_walk(blueprint, position)[0])


def weightless_before(blueprint: Blueprint, position: int) -> frozenset[int]:
    """Return the weightless layers between a layer and its :func:`sources_through`."""
    return frozenset(_walk(blueprint, position)[1])


def readers(model: nn.Module, blueprint: Blueprint) -> dict[nn.Module, list[int]]:
    """Return the Linear and Conv modules that read what other weight layers give, each with its calls' positions."""
    found: dict[nn.Module, list[int]] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(model, layer)
        if layer.role is Role.LINEAR and isinstance(module, (nn.Linear, _ConvNd)):
            found.setdefault(module, []).append(position)
    return {m: calls for m, calls in found.items() if all(sources_through(blueprint, call) for call in calls)}


def input_shapes(setup: TrainingSetup, batch: Batch) -> dict[nn.Module, torch.Size]:
    """Return the shape of the first input of every Linear and Conv module that one forward pass calls."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            shapes[module] = args[0].shape

    with preserved(setup.model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for module in setup.model.modules():
            if isinstance(module, (nn.Linear, _ConvNd)):
                module.register_forward_pre_hook(note)
        run_model(setup, setup.model, batch)
    return shapes


def _walk(blueprint: Blueprint, position: int) -> tuple[set[int], set[int]]:
    weighted, weightless = set[int](), set[int]()
    open_ends = list(blueprint.layers[position].follows)
    while open_ends:
        source = open_ends.pop()
        if blueprint.layers[source].role in WEIGHTED:
            weighted.add(source)
        elif source not in weightless:
            weightless.add(source)
            open_ends.extend(blueprint.layers[source].follows)
    return weighted, weightless
