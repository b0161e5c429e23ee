"""Static facts of a set-up, drawn from one recorded forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from steadygrad.errors import SetupError
from steadygrad.records import Blueprint, Layer, Range, Role, TargetKind
from steadygrad.signals.layers import fans_of, kind_of, plain_name, role_of
from steadygrad.signals.moments import range_of
from steadygrad.signals.recorder import Call, Recorder
from steadygrad.training import (
    Batch,
    Step,
    TrainingSetup,
    first_batch,
    foreign_parameters,
    input_tensors,
    make_optimizer,
    output_tensor,
    preserved,
    row_count,
    run_loss,
    run_model,
    target_of,
    trainable,
)

__all__ = ["Recorded", "draw_blueprint", "layers_of", "optimizer_of", "plain_model", "read_blueprint", "record"]

OWN_PARAMETERS = "(own parameters)"

ACTS_BY_MODE = (_NormBase, _DropoutNd)
SHAPE_KEEPERS = frozenset({"Dropout", "AlphaDropout", "Identity", "Flatten", "Unflatten", "MaxPool2d", "AvgPool2d"})


@torch.inference_mode(False)
@torch.enable_grad()
def read_blueprint(setup: TrainingSetup, batch: Batch | None = None) -> Blueprint:
    """Read the static facts of a set-up in one forward pass; the model is left bit for bit as found.

    Raises:
        SetupError: If the model or the loss fails on the batch.
    """
    batch = first_batch(setup) if batch is None else batch
    with preserved(setup.model, setup.loss):
        return draw_blueprint(setup, record(setup, batch), optimizer_of(setup))


class Recorded(NamedTuple):
    """One recorded forward pass in training mode: ``calls`` holds the recorder's, then what was used unseen."""

    batch: Batch
    inputs: tuple[Range, ...]
    recorder: Recorder
    step: Step
    calls: list[Call]
    evaluating: tuple[str, ...] = ()
    labels_outside: int = 0


def record(
    setup: TrainingSetup, batch: Batch, on_output: Callable[[int, Call, Tensor], None] | None = None
) -> Recorded:
    """Run one recorded forward pass in training mode. The caller preserves the model.

    Compiled parts run eagerly meanwhile, so that their layers are seen.
    """
    model = plain_model(setup.model)
    evaluating = tuple(n for n, m in model.named_modules() if isinstance(m, ACTS_BY_MODE) and not m.training)
    model.train()
    recorder = Recorder(model, on_output)
    inputs = tuple(recorder.range(tensor) for tensor in input_tensors(batch) if tensor.is_floating_point())
    with torch.compiler.set_stance("force_eager"), recorder:
        step, outside = _with_loss(setup, run_model(setup, model, batch), batch)
    calls = recorder.calls + _unseen_calls(recorder, model)
    return Recorded(batch, inputs, recorder, step, calls, evaluating, outside)


def _with_loss(setup: TrainingSetup, output: Any, batch: Batch) -> tuple[Step, int]:
    """Run the loss; where it fails for labels that the output has no unit for, on the nearest ones that it has.

    Returns:
        The step with the labels as they came, and how many of them lie outside.
    """
    try:
        return run_loss(setup, output, batch), 0
    except SetupError:
        scores, target = output_tensor(output), target_of(batch)
        labels = isinstance(target, Tensor) and not target.is_floating_point()
        if setup.loss is None or not labels or scores is None or scores.dim() < 2:
            raise
        nearest = target.clamp(0, scores.shape[1] - 1)
        if not (outside := int((nearest != target).sum())):
            raise
        mended = run_loss(setup.replace(loss=lambda output, _: setup.loss(output, nearest)), output, batch)
        return mended._replace(target=target), outside


def plain_model(model: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` wrapped; any other module as it is."""
    return getattr(model, "_orig_mod", model)


def optimizer_of(setup: TrainingSetup) -> torch.optim.Optimizer | None:
    """Build the set-up's optimizer over its own model; None if it has none or there is nothing to train.

    It may hold other parameters: the blueprint says so, and it must not step then.
    """
    if setup.optimizer is None or not trainable(setup.model):
        return None
    return make_optimizer(setup, setup.model, foreign=True)


def draw_blueprint(setup: TrainingSetup, recorded: Recorded, optimizer: torch.optim.Optimizer | None) -> Blueprint:
    """Turn a recorded pass into a blueprint."""
    recorder, step, calls = recorded.recorder, recorded.step, recorded.calls
    output = output_tensor(step.output)
    head = _head(calls, recorder, output)
    return Blueprint(
        layers=layers_of(calls),
        loss=recorder.loss,
        loss_shapes=recorder.loss_shapes,
        loss_reduction=recorder.loss_reduction,
        head=calls[head].kind if head is not None and calls[head].role is Role.ACTIVATION else None,
        head_layer=head,
        output=range_of(output) if output is not None else None,
        inputs=recorded.inputs,
        entries=tuple(recorder.entries),
        target=range_of(step.target) if isinstance(step.target, Tensor) else None,
        target_kind=_target_kind(step.target),
        optimizer=type(optimizer).__name__ if optimizer is not None else None,
        optimizer_settings=_settings(optimizer) if optimizer is not None else {},
        steps=setup.steps,
        batch=row_count(recorded.batch),
        parameters=sum(parameter.numel() for parameter in setup.model.parameters()),
        scheduled=setup.scheduler is not None,
        learned=setup.redraw is None,
        unoptimized=_unoptimized(calls, optimizer),
        foreign=foreign_parameters(optimizer, setup.model) if optimizer is not None else 0,
        labels_outside=recorded.labels_outside,
        evaluating=recorded.evaluating,
        functions=tuple(sorted(recorder.functions)),
        unseen=_unseen(plain_model(setup.model), calls),
    )


def _unoptimized(calls: list[Call], optimizer: torch.optim.Optimizer | None) -> tuple[str, ...]:
    """Return the calls some of whose trainable parameters the optimizer does not hold."""
    if optimizer is None:
        return ()
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return tuple(call.name for call in calls if any(p.requires_grad and id(p) not in held for p in call.parameters))


def layers_of(calls: list[Call]) -> tuple[Layer, ...]:
    """Return the calls of a forward pass as layers of a blueprint, each with what follows it."""
    followers: dict[int, list[int]] = {position: [] for position in range(len(calls))}
    for position, call in enumerate(calls):
        for source in call.follows:
            followers[source].append(position)
    layers = []
    for position, call in enumerate(calls):
        activation, normalized = _what_follows(position, calls, followers)
        layers.append(
            Layer(
                name=call.name,
                module=call.module,
                kind=call.kind,
                role=call.role,
                follows=tuple(sorted(call.follows)),
                fan_in=call.fans[0] if call.fans else None,
                fan_out=call.fans[1] if call.fans else None,
                activation=activation,
                normalized=normalized,
                trainable=any(parameter.requires_grad for parameter in call.parameters),
                parameters=sum(parameter.numel() for parameter in call.parameters),
                dropout=call.dropout,
            )
        )
    return tuple(layers)


def _what_follows(position: int, calls: list[Call], followers: dict[int, list[int]]) -> tuple[str | None, bool]:
    """Follow the signal to the next activation, and say whether a normalization stands on the way."""
    normalized = False
    for _ in range(len(calls)):
        if not followers[position]:
            return None, normalized
        position = followers[position][0]
        role = calls[position].role
        if role is Role.ACTIVATION:
            return calls[position].kind, normalized
        if role is Role.NORMALIZATION:
            normalized = True
        elif role is not Role.OTHER:
            return None, normalized
    return None, normalized


def _head(calls: list[Call], recorder: Recorder, output: Tensor | None) -> int | None:
    sources = recorder.sources(output) if output is not None else recorder.loss_sources
    position = max(sources, default=None)
    while position is not None and calls[position].role is Role.OTHER and calls[position].kind in SHAPE_KEEPERS:
        position = max(calls[position].follows, default=None)
    return position


def _unseen_calls(recorder: Recorder, model: nn.Module) -> list[Call]:
    """Return one entry for each module whose own parameters belong to none of the recorded calls."""
    seen = {id(parameter) for call in recorder.calls for parameter in call.parameters}
    rest = []
    for name, module in model.named_modules():
        own = tuple(parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen)
        if own:
            seen.update(id(parameter) for parameter in own)
            name, kind, role = plain_name(name), kind_of(module), role_of(module)
            role = Role.OTHER if role is Role.LINEAR else role
            call_name = f"{name or kind} {OWN_PARAMETERS}"
            rest.append(Call(call_name, name, kind, role, parameters=own, fans=fans_of(role, own)))
    return rest


def _unseen(model: nn.Module, calls: list[Call]) -> tuple[str, ...]:
    notes = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            notes.append(f"{name or 'the model'}: a script module; what happens inside is not seen")
            break
    uncalled = [call.name for call in calls if call.name.endswith(OWN_PARAMETERS)]
    if uncalled:
        notes.append(
            f"{len(uncalled)} modules used other than by calling them; their outputs are not seen: {_some(uncalled)}"
        )
    untracked = [call.name for call in calls if not call.tracked and any(p.requires_grad for p in call.parameters)]
    if untracked:
        notes.append(
            f"{len(untracked)} trainable layers run without recording gradients (torch.no_grad, or checkpoint with "
            f"use_reentrant=True); the gradients at their outputs are not seen: {_some(untracked)}"
        )
    return tuple(notes)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the numbers among an optimizer's settings; a learning rate may be a tensor."""
    return {
        key: float(value)
        for key, value in optimizer.param_groups[0].items()
        if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)
    }


def _target_kind(target: Any) -> TargetKind:
    if not isinstance(target, Tensor):
        return TargetKind.NONE
    if not target.is_floating_point():
        return TargetKind.CLASS_INDEX
    return TargetKind.BINARY if bool(((target == 0) | (target == 1)).all()) else TargetKind.REAL
