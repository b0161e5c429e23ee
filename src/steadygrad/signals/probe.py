"""One batch in, one Blueprint and one Observation out; the network is left bit for bit as found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from steadygrad.errors import SetupError
from steadygrad.records import Blueprint, LayerStats, Moments, Observation, Role
from steadygrad.signals.blueprint import Recorded, draw_blueprint, optimizer_of, record
from steadygrad.signals.layers import RECTIFIERS, SATURATION_BOUNDS, canonical, plain_name
from steadygrad.signals.moments import batch_deviation, moments, share_outside, squared_distance, sum_of_squares
from steadygrad.signals.recorder import Call
from steadygrad.training import (
    Batch,
    TrainingSetup,
    blamed,
    first_batch,
    output_tensor,
    preserved,
    trainable,
)

__all__ = ["output_stats", "probe", "weight_stats"]


@torch.inference_mode(False)
@torch.enable_grad()
def probe(setup: TrainingSetup, batch: Batch | None = None) -> tuple[Blueprint, Observation]:
    """Measure one forward pass in training mode, one backward pass and one optimizer step of a set-up.

    Nothing is left changed: parameters, buffers, gradients, train/eval flags, hooks, random states, also when the
    model raises midway. All statistics are exact and over the whole batch; zeros are counted in the outputs of
    activations only, elsewhere ``zero_fraction`` is NaN.

    Args:
        setup: What to look at.
        batch: The batch; by default the first of the training data.

    Raises:
        SetupError: If the model has no parameters, or model, loss or optimizer fail on the batch.
    """
    if next(setup.model.parameters(), None) is None:
        raise SetupError("model: expected a model with parameters, got one without. There is nothing to train.")
    batch = first_batch(setup) if batch is None else batch
    with preserved(setup.model, setup.loss) as before:
        return _measure(setup, batch, before)


def _measure(setup: TrainingSetup, batch: Batch, before: dict[int, Tensor]) -> tuple[Blueprint, Observation]:
    measured: dict[int, LayerStats] = {}
    output_grads: dict[int, Moments] = {}
    hooks: list[RemovableHandle] = []

    def on_output(position: int, call: Call, output: Tensor) -> None:
        measured[position] = output_stats(call, output)
        if output.requires_grad:
            hooks.append(output.register_hook(lambda grad: output_grads.update({position: moments(grad, zeros=False)})))

    try:
        recorded = record(setup, batch, on_output)
        grads = _gradients(setup.model, recorded)
    finally:
        for hook in hooks:
            hook.remove()
    loss, output = recorded.step.loss.item(), output_tensor(recorded.step.output)
    optimizer = optimizer_of(setup)
    blueprint = draw_blueprint(setup, recorded, optimizer)
    weights = {id(weight): weight for call in recorded.calls for weight in _weights(call)}
    made = _made_weights(setup.model, recorded.calls)
    received = {key: moments(grads[key], zeros=False) for key in weights if key in grads}
    norms = [grad.rms * math.sqrt(grad.numel - grad.nonfinite) for grad in received.values()]
    norms += [math.sqrt(sum_of_squares(grad)) for key, grad in grads.items() if key not in received]
    steps: dict[int, float] = {}
    able = math.isfinite(loss) and not blueprint.foreign
    if optimizer is not None and able and _step(setup, optimizer, grads):
        steps = {key: squared_distance(weight, before[key]) for key, weight in weights.items()}
    layers = [
        replace(
            weight_stats(call, before, made, received, steps, measured.get(position, LayerStats(""))),
            name=call.name,
            output_grad=output_grads.get(position),
        )
        for position, call in enumerate(recorded.calls)
    ]
    return blueprint, Observation(
        loss=loss,
        layers=tuple(layers),
        grad_norm=math.hypot(*norms),
        output=moments(output, zeros=False) if output is not None else None,
        output_signal=batch_deviation(output) if output is not None else None,
    )


def output_stats(call: Call, output: Tensor) -> LayerStats:
    """Return what the output of a call says: its moments, its signal, and dead or saturated units."""
    kind = canonical(call.kind)
    bounds = SATURATION_BOUNDS.get(kind)
    return LayerStats(
        call.name,
        output=moments(output, zeros=call.role is Role.ACTIVATION),
        signal=batch_deviation(output),
        dead_fraction=_dead_fraction(output.detach()) if kind in RECTIFIERS and output.numel() else None,
        saturated_fraction=share_outside(output, *bounds) if bounds else None,
    )


def _dead_fraction(output: Tensor) -> float:
    """Return the share of a rectifier's units that are 0 for every sample.

    Units lie along dimension 1 of images, else along the last.
    """
    unit = 1 if output.dim() > 3 else output.dim() - 1
    others = [dimension for dimension in range(output.dim()) if dimension != unit]
    alive = (output.amax(others) if others else output) != 0  # many times faster than any(output != 0)
    return 1.0 - alive.double().mean().item()


def _gradients(model: nn.Module, recorded: Recorded) -> dict[int, Tensor]:
    """Return the gradient of every parameter that gets one, by the parameter's ``id``.

    ``torch.autograd.grad`` in place of ``backward``: it does not fire the user's own accumulation hooks, which may
    hold an optimizer. Only a checkpoint with ``use_reentrant=True``, whose layers run untracked, refuses it.
    """
    parameters, loss = trainable(model), recorded.step.loss
    found: list[Tensor | None]
    if not parameters or not loss.requires_grad:
        return {}
    with blamed("loss: the backward pass failed"):
        if all(call.tracked for call in recorded.calls):
            found = list(torch.autograd.grad(loss, parameters, allow_unused=True))
        else:
            loss.backward()
            found = [parameter.grad for parameter in parameters]
    return {id(parameter): grad for parameter, grad in zip(parameters, found, strict=True) if grad is not None}


def _step(setup: TrainingSetup, optimizer: torch.optim.Optimizer, grads: dict[int, Tensor]) -> bool:
    """Make one step of the set-up's optimizer; whether one was made."""
    if not grads or isinstance(optimizer, torch.optim.LBFGS):  # needs a closure; its first step says little
        return False
    given: set[int] = set()
    for parameter in trainable(setup.model):
        grad = grads.get(id(parameter))
        if grad is not None and grad.layout == torch.strided:
            # As after backward(): memory of its own, which hooks of the optimizer may change in place.
            if grad.stride() != parameter.stride() or grad.data_ptr() in given:
                grad = torch.empty_like(parameter).copy_(grad)
            given.add(grad.data_ptr())
        parameter.grad = grad
    for group in optimizer.param_groups:
        if all(_fits_fused(parameter) for parameter in group["params"]) and _is_free_to_fuse(group):
            group["fused"] = True  # the same step at a third of the time
    with blamed("optimizer: step failed"):
        optimizer.step()
    return True


def _is_free_to_fuse(group: dict[str, Any]) -> bool:
    """Whether an optimizer knows a fused step and the user left the choice to torch."""
    return group.get("fused", False) is None and not group["foreach"] and not group["differentiable"]


def _fits_fused(parameter: nn.Parameter) -> bool:
    dense = parameter.grad is None or parameter.grad.layout == torch.strided
    return dense and parameter.is_cpu and parameter.dtype in (torch.float32, torch.float64)


def _weights(call: Call) -> list[nn.Parameter]:
    """Return the parameters that count as a call's weights: its matrices, or all where its role is not known."""
    return [parameter for parameter in call.parameters if parameter.dim() > 1 or call.role is Role.OTHER]


@torch.no_grad()
def _made_weights(model: nn.Module, calls: list[Call]) -> dict[str, Moments]:
    """Return the moments of the weights that are made of parameters, as by weight normalization, by module name."""
    called = {call.module for call in calls if _weights(call)}
    found = {}
    for name, module in model.named_modules():
        if plain_name(name) not in called:
            continue
        if is_parametrized(module, "weight"):
            module.parametrizations.eval()  # in training mode, reading it would make another power iteration
        elif "weight" not in vars(module):  # where hooks of torch's older utilities leave it
            continue
        if isinstance(weight := module.weight, Tensor) and weight.dim() > 1:
            found[plain_name(name)] = moments(weight.detach(), zeros=False)
    return found


def weight_stats(
    call: Call,
    before: dict[int, Tensor],
    made: dict[str, Moments],
    received: dict[int, Moments],
    steps: dict[int, float],
    stats: LayerStats,
) -> LayerStats:
    """Return ``stats`` with what concerns the weights of a call; ``steps`` are sums of squares."""
    keys = [id(weight) for weight in _weights(call)]
    if not keys:
        return stats
    own = _joined([moments(before[key], zeros=False) for key in keys])
    grads = [received[key] for key in keys if key in received]
    ratio = None
    if steps and grads and own.rms > 0:
        ratio = math.sqrt(sum(steps[key] for key in keys) / own.numel) / own.rms
    return replace(
        stats,
        weight=made.get(call.module, own),
        weight_grad=_joined(grads) if grads else None,
        update_ratio=ratio,
    )


def _joined(parts: list[Moments]) -> Moments:
    """Return the moments of several tensors as if they were one, zeros not counted."""
    if len(parts) == 1:
        return parts[0]
    counts = [part.numel - part.nonfinite for part in parts]
    total = max(sum(counts), 1)
    # hypot: a square of 1e-200 would read 0.
    return Moments(
        rms=math.hypot(*(part.rms * math.sqrt(n / total) for part, n in zip(parts, counts, strict=True))),
        mean=sum(part.mean * n for part, n in zip(parts, counts, strict=True)) / total,
        abs_max=max(part.abs_max for part in parts),
        zero_fraction=math.nan,
        nonfinite=sum(part.nonfinite for part in parts),
        numel=sum(part.numel for part in parts),
    )
