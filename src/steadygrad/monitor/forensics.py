"""Which module made the first NaN: the very batch again, under full instruments, while parameters are still clean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.diagnosis import explain, judge
from steadygrad.monitor.activation_tap import Watch, inner_model
from steadygrad.monitor.hooks import UncopiedHook, on_grad, within_transform
from steadygrad.records import Finding, Severity
from steadygrad.signals import probe
from steadygrad.training import TrainingSetup

__all__ = ["Call", "CallKeeper", "find_producer"]


@dataclass(slots=True)
class Call:
    """One call of a model, as far as it takes to make it again.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        random_state: torch's state before the call.
        seeds: Gradients that came back to the floating tensors of the output, in order; None where none came.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    random_state: Tensor
    seeds: list[Tensor | None]


class CallKeeper:
    """Keep a model's last call with gradients recorded, by reference: nothing is copied but the random state."""

    def __init__(self, model: nn.Module, watch: Watch, on_fault: Callable[[BaseException], None]) -> None:
        self.model = model
        self.last: Call | None = None
        self._watch, self._on_fault = watch, on_fault
        self._under_way: Call | None = None
        self._hooks = [
            model.register_forward_pre_hook(UncopiedHook(self._before), with_kwargs=True),
            model.register_forward_hook(UncopiedHook(self._after)),
        ]

    def detach(self) -> None:
        """Take all hooks away and forget the call."""
        for hook in self._hooks:
            hook.remove()
        self.last = self._under_way = None

    def _before(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        if kwargs is None or torch.compiler.is_compiling():  # None: removed while torch goes through a call's hooks
            return
        self._under_way = None
        if torch.is_grad_enabled() and not self._watch.muted and not within_transform():
            self.last = self._under_way = Call(args, kwargs, torch.get_rng_state(), [])

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._under_way
        if call is None or torch.compiler.is_compiling():
            return
        self._under_way = None
        try:
            for place, tensor in enumerate(floating_tensors(output)):
                call.seeds.append(None)
                on_grad(tensor, UncopiedHook(call.seeds.__setitem__, place))
        except Exception as error:
            self._on_fault(error)


class _Seeded(torch.autograd.Function):
    """A loss of 0 whose gradient is what was recorded: stands for the loss that is not ours to see."""

    @staticmethod
    def forward(ctx: Any, seeds: list[Tensor | None], *outputs: Tensor) -> Tensor:
        """Return 0."""
        ctx.seeds = seeds
        return torch.zeros((), device=outputs[0].device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the recorded gradients."""
        return None, *ctx.seeds


def find_producer(model: nn.Module, call: Call) -> list[Finding]:
    """Make a call and its backward pass again and say which module made the first non-finite number, and where.

    Model, gradients and random states are left bit for bit as found.

    Returns:
        SG203 (forward), SG204 (backward) or SG205 (the loss); empty if the second time everything is finite.
    """
    model = inner_model(model)

    def forward(again: nn.Module, _: Any) -> dict[str, Any]:
        torch.set_rng_state(call.random_state)
        output = again(*call.args, **call.kwargs)
        outputs = floating_tensors(output)
        tracked = [
            place for place, tensor in enumerate(outputs) if tensor.requires_grad and _seed(call, place) is not None
        ]
        loss = (
            _Seeded.apply([_seed(call, place) for place in tracked], *(outputs[place] for place in tracked))
            if tracked
            else torch.zeros(())
        )
        return {"loss": loss, "logits": outputs[0] if outputs else None}

    inputs = {f"input {place}": tensor for place, tensor in enumerate(floating_tensors((call.args, dict(call.kwargs))))}
    setup = TrainingSetup(model, loss=None, train=[inputs], forward=forward)
    blueprint, observation = probe(setup, inputs)
    forward_findings = judge(blueprint, observation, select=["SG203", "SG801"]).findings
    if forward_findings:
        return list(forward_findings)
    if any(seed is not None and not bool(seed.isfinite().all()) for seed in call.seeds):
        rule = explain("SG205")
        message = "the model's output is finite, and the gradient that comes back to it from the loss is not"
        return [Finding("SG205", rule.symptom, Severity.ERROR, message, rule.advice)]
    return list(judge(blueprint, observation, select=["SG204"]).findings)


def _seed(call: Call, place: int) -> Tensor | None:
    return call.seeds[place] if place < len(call.seeds) else None


def floating_tensors(value: Any) -> list[Tensor]:
    """Return the floating tensors in a nest of tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in floating_tensors(item)]
