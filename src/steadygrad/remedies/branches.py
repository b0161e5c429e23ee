"""Zero the last layer of every residual branch, so that a network starts as its shortcuts alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Role
from steadygrad.signals.blueprint import plain_model
from steadygrad.signals.meanfield import activation_by_kind
from steadygrad.signals.recorder import Call, Recorder
from steadygrad.training import Batch, first_batch, preserved, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["zero_residual_"]


@torch.no_grad()
def zero_residual_(setup: TrainingSetup, batch: Batch | None = None) -> list[str]:
    """Set the last weight of each residual branch ``F`` in ``x + F(x)`` to 0, in place, and return the layers' names.

    That is the scale and shift of a normalization, or weight and bias of a Linear, Conv or attention layer; each block
    is an identity then and learns from the first step on. If a shortcut has layers too, the longer way is the branch.

    Args:
        setup: Its model is changed.
        batch: The batch to find the additions with; by default the first of the training data.

    Raises:
        NotApplicableError: If there is no branch, or one ends in something else: behind a ReLU, which is flat at 0, a
            weight of 0 would never learn.

    Reference:
        Goyal et al., Accurate, Large Minibatch SGD, 2017, sec. 5.1. https://arxiv.org/abs/1706.02677
    """
    batch = first_batch(setup) if batch is None else batch
    model = plain_model(setup.model)
    additions = _Additions(model)
    with preserved(model), torch.compiler.set_stance("force_eager"), additions:
        run_model(setup, model.train(), batch)
    ends = dict.fromkeys(end for pair in additions.pairs for end in _ends(additions.calls, *pair))
    zeroed = {additions.calls[end].name: _last_weight(model, additions.calls[end]) for end in ends}
    if not zeroed or not all(zeroed.values()):
        stuck = next((name for name, weight in zeroed.items() if not weight), None)
        raise NotApplicableError(
            "zero_residual: expected residual branches that end in a trainable weight, "
            + (f"but one ends in {stuck}. " if stuck else "found none. ")
            + "Add or scale branches with residual(kind='rezero')."
        )
    for parameter in (parameter for last in zeroed.values() for parameter in last):
        parameter.zero_()
    return list(zeroed)


class _Additions(Recorder):
    """A recorder that also keeps, for every addition, the calls that each of its two terms comes from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.pairs: list[tuple[frozenset[int], frozenset[int]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").strip("_") in ("add", "iadd", "radd"):
            terms = [*args, *(kwargs or {}).values()]
            self.pairs.append((self.sources(terms[0]), self.sources(terms[1])))
        return super().__torch_function__(func, types, args, kwargs)


def _ends(calls: list[Call], one: frozenset[int], other: frozenset[int]) -> Iterator[int]:
    """Yield the layers that end the branch of an addition; none if it adds two things without a common origin."""
    ways = _ancestors(calls, one), _ancestors(calls, other)
    alone = ways[0] - ways[1], ways[1] - ways[0]
    if not ways[0] & ways[1] or len(alone[0]) == len(alone[1]):
        return
    branch = 0 if len(alone[0]) > len(alone[1]) else 1
    open_ends = [end for end in (one, other)[branch] if end in alone[branch]]
    while open_ends:
        end = open_ends.pop()
        if calls[end].role is Role.OTHER or _passes_zero(calls[end]):
            open_ends.extend(calls[end].follows)
        else:
            yield end


def _ancestors(calls: list[Call], positions: frozenset[int]) -> set[int]:
    found: set[int] = set()
    open_ends = list(positions)
    while open_ends:
        position = open_ends.pop()
        if position not in found:
            found.add(position)
            open_ends.extend(calls[position].follows)
    return found


def _passes_zero(call: Call) -> bool:
    """Whether a call is an activation that is 0 at 0 and has a slope there."""
    if call.role is not Role.ACTIVATION:
        return False
    try:
        function = activation_by_kind(call.kind)
    except UsageError:
        return False
    with torch.enable_grad():
        zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = function(zero)
        (slope,) = torch.autograd.grad(value, zero)
    return value.item() == 0 and slope.item() != 0


def _last_weight(model: nn.Module, call: Call) -> list[nn.Parameter]:
    """Return the parameters of a layer that make its output 0 at 0; none if it has no such, or they are frozen."""
    module = model.get_submodule(call.module)
    if call.role is Role.ATTENTION and isinstance(module, nn.MultiheadAttention):
        module = module.out_proj
    elif call.role not in (Role.LINEAR, Role.NORMALIZATION) or is_parametrized(module):
        return []
    parameters = list(module.parameters(recurse=False))
    return parameters if all(parameter.requires_grad for parameter in parameters) else []
