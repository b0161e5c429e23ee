"""The blueprint of a model under training, drawn from its own first forward pass, and the rules of ``check`` on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from steadygrad.diagnosis import judge
from steadygrad.monitor.activation_tap import inner_model
from steadygrad.monitor.hooks import UncopiedHook, within_transform
from steadygrad.records import Blueprint, Finding, LayerStats, Observation
from steadygrad.signals import Recorder
from steadygrad.signals.blueprint import Recorded, draw_blueprint
from steadygrad.signals.moments import range_of
from steadygrad.training import Step, TrainingSetup

__all__ = ["WiringTap"]

# Those that need neither the loss nor an untrained network. SG103 would accuse what another optimizer trains.
SELECTED = ("SG101", "SG102", "SG104", "SG201", "SG202", "SG203", "SG301", "SG302", "SG501")


class WiringTap:
    """Record which layer follows which while the model runs its first forward pass in eager code.

    Args:
        model: The network.
        prefix: What stands before the names of its layers in the history.
        on_fault: Gets an exception of this tap.

    Attributes:
        blueprint: The static facts; None as long as nothing was recorded (compiled code never is).
    """

    def __init__(self, model: nn.Module, prefix: str, on_fault: Callable[[BaseException], None]) -> None:
        self.blueprint: Blueprint | None = None
        self._model, self._prefix, self._on_fault = inner_model(model), prefix, on_fault
        self._recorder: Recorder | None = None
        self._hooks: list[Any] = []
        compiled = any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in model.modules())
        if not compiled:
            self._hooks = [
                self._model.register_forward_pre_hook(UncopiedHook(self._enter), with_kwargs=True, prepend=True),
                self._model.register_forward_hook(UncopiedHook(self._leave), with_kwargs=True, always_call=True),
            ]

    def detach(self) -> None:
        """Take all hooks away, in the middle of a forward pass too."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.__exit__(None, None, None)

    def judge(self, observation: Observation) -> list[Finding]:
        """Apply the rules of ``check`` that can do without the loss."""
        if self.blueprint is None:
            return []
        stats = {layer.name.removeprefix(self._prefix): layer for layer in observation.layers}
        layers = tuple(stats.get(layer.name, LayerStats(layer.name)) for layer in self.blueprint.layers)
        head = self.blueprint.head_layer
        seen = Observation(
            loss=observation.loss,
            layers=layers,
            grad_norm=observation.grad_norm,
            output=None if head is None else layers[head].output,
            output_signal=None if head is None else layers[head].signal,
            step=observation.step,
        )
        return list(judge(self.blueprint, seen, select=SELECTED).findings)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._recorder is not None or not torch.is_grad_enabled():
            return
        if torch.compiler.is_compiling() or within_transform():
            return
        recorder = Recorder(self._model, tolerant=True)
        try:
            recorder.enter_call(args, kwargs)
            self._recorder = recorder
        except Exception as error:
            recorder.__exit__(None, None, None)
            self._on_fault(error)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        try:
            recorder.leave_call(args, kwargs, output)
            self.detach()
            if recorder.fault is not None:
                raise recorder.fault
            if output is None:  # the call raised
                return
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            inputs = tuple(range_of(tensor) for tensor in tensors if tensor.is_floating_point())
            setup = TrainingSetup(self._model, loss=None, train=[tensors], forward=lambda model, batch: model(*batch))
            step = Step(output, None, torch.zeros(()))
            self.blueprint = draw_blueprint(setup, Recorded(tensors, inputs, recorder, step, recorder.calls), None)
        except Exception as error:
            self._on_fault(error)
