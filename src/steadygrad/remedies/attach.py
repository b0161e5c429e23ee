"""Put gradient transforms on an optimizer, and take them off again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies.gradients import Gradients, GradientTransform, State
from steadygrad.remedies.sharding import sharded_dims
from steadygrad.remedies.tally import Deeds, deeds

__all__ = ["Attachment", "attach", "attachment_of"]

P = ParamSpec("P")
R = TypeVar("R")
_KEY = "steadygrad"  # in the optimizer's state dict

# Marks that other libraries leave on parameters whose gradients are not here at the optimizer's step.
_FOREIGN = {
    "_in_backward_optimizers": "their optimizer steps within the backward pass, parameter by parameter",
    "_fsdp_flattened": "FSDP1 spreads them over processes without saying how; use fully_shard (FSDP2)",
    "ds_id": "DeepSpeed keeps their gradients to itself; use its gradient_clipping setting",
}


def _eager(method: Callable[P, R]) -> Callable[P, R]:
    """Leave a method out of compiled code; it takes no time in code that is not compiled."""
    left_out = _disable_dynamo(method)  # torch.compiler.disable would import the compiler now

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return (left_out if torch.compiler.is_compiling() else method)(*args, **kwargs)

    return run


def attach(optimizer: torch.optim.Optimizer, transform: GradientTransform) -> Attachment:
    """Let a gradient transform act before every step of an optimizer, until :meth:`Attachment.detach`.

    It sees the gradients that the optimizer would use: after accumulation, unscaling and reduction over processes. With
    a closure it acts on what each call of the closure leaves behind, so that LBFGS, which calls several times a step,
    counts every call as a step. Steps that a ``GradScaler`` skips leave it untouched. A factor that all gradients share
    is handed to fused optimizers as ``grad_scale``, which saves writing the gradients.

    The state travels with ``optimizer.state_dict()`` and ``load_state_dict`` under the key ``"steadygrad"``, and with
    ``copy.deepcopy(optimizer)``. Pickling the optimizer itself loses it, as all of torch's hooks. ``optimizer.step``
    may be compiled; the transform then runs eagerly. DDP and FSDP2 need nothing.

    Args:
        optimizer: Any torch optimizer.
        transform: One transform, or several joined by :func:`~steadygrad.remedies.chain`.

    Raises:
        UsageError: If it is no torch optimizer or has a transform already.
        NotApplicableError: If the transform cannot work on this optimizer or its parameters; the message says why.

    Example:
        >>> from steadygrad.remedies import clip_by_global_norm
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> attachment = attach(optimizer, clip_by_global_norm(1.0))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> optimizer.step()
        >>> weight.data
        tensor([-0.6000, -0.8000])
        >>> print(attachment.report()[0])
        clip_by_global_norm: acted on 1 of 1 steps (100.0%), factor 0.2 on average, 0.2 at least; before it p10 5, ...
        >>> attachment.detach()
    """
    _check(optimizer, transform)
    return Attachment(optimizer, transform, transform.init(_parameters(optimizer)))


def attachment_of(optimizer: torch.optim.Optimizer) -> Attachment | None:
    """Return what :func:`attach` put on an optimizer or on the one that it is a copy of; None if nothing is on it."""
    owner = getattr(vars(optimizer).get("__deepcopy__"), "__self__", None)
    return owner if isinstance(owner, Attachment) else None


class Attachment:
    """A gradient transform on an optimizer; made by :func:`attach`.

    Attributes:
        state: What the transform remembers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, transform: GradientTransform, state: State) -> None:
        self.state = state
        self._optimizer = optimizer
        self._transform = transform
        self._hidden: list[tuple[Tensor, Tensor]] = []  # gradients of a step that is skipped
        self._folded: Tensor | None = None
        self._scale_before: tuple[Tensor | None, ...] = ()  # what grad_scale was; empty if there was none
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]
        optimizer.__deepcopy__ = self._deepcopy  # type: ignore[attr-defined]  # torch's copies lose all hooks

    def report(self) -> tuple[Deeds, ...]:
        """Return how often and how hard each clip acted, in order."""
        return tuple(deeds(self._transform.name, self.state))

    def detach(self) -> None:
        """Take the transform off; the optimizer is as it was before. Doing so twice does no harm."""
        for handle in self._handles:
            handle.remove()
        vars(self._optimizer).pop("__deepcopy__", None)

    @_eager
    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._forget_unfinished_step()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer
        if closure is None:
            self._act()
            return None
        return (optimizer, *args[2:]), kwargs | {"closure": self._after_closure(closure)}

    def _after_closure(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def wrapped() -> Any:
            loss = closure()
            self._act()
            return loss

        return wrapped

    @_eager
    @torch.no_grad()
    def _act(self) -> None:
        optimizer = self._optimizer
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return  # a GradScaler has the fused optimizer skip this step
        scale = getattr(optimizer, "grad_scale", None)
        parameters = _parameters(optimizer)
        gradients = Gradients(parameters, 1.0 if scale is None else scale.item())
        self.state = self._transform.update(gradients, self.state, parameters)
        if gradients.skip:
            self._hide(gradients.parameters)
            return
        left = gradients.write(all_but_one=_takes_grad_scale(optimizer))
        if left != (1.0 if scale is None else 1.0 / scale.item()):
            self._scale_before = (scale,) if "grad_scale" in vars(optimizer) else ()
            self._folded = torch.full((), 1.0 / left, dtype=torch.float32, device=gradients.parameters[0].device)
            optimizer.grad_scale = self._folded  # type: ignore[attr-defined]

    def _hide(self, parameters: list[Tensor]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            self._hidden.append((parameter, parameter.grad))
            parameter.grad = None

    @_eager
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, gradient in self._hidden:
            parameter.grad = gradient
        self._forget_unfinished_step()

    def _forget_unfinished_step(self) -> None:
        self._hidden.clear()
        if self._folded is not None and getattr(self._optimizer, "grad_scale", None) is self._folded:
            del self._optimizer.grad_scale  # type: ignore[attr-defined]  # torch's own contract with fused optimizers
            if self._scale_before:
                self._optimizer.grad_scale = self._scale_before[0]  # type: ignore[attr-defined]
        self._folded = None

    def _save(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        state_dict[_KEY] = {"name": self._transform.name, "state": copy.deepcopy(self.state)}

    def _load(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        saved = state_dict.get(_KEY)
        if saved is None:  # from before the transform was attached
            return
        if saved["name"] != self._transform.name:
            raise UsageError(
                f"load_state_dict: expected the state of {self._transform.name}, got that of {saved['name']}. "
                "Attach the same transforms in the same order as when it was saved."
            )
        self.state = copy.deepcopy(saved["state"])

    def _deepcopy(self, memo: dict[int, Any]) -> torch.optim.Optimizer:
        del self._optimizer.__deepcopy__  # type: ignore[attr-defined]
        try:
            copied = copy.deepcopy(self._optimizer, memo)
        finally:
            self._optimizer.__deepcopy__ = self._deepcopy  # type: ignore[attr-defined]
        Attachment(copied, self._transform, copy.deepcopy(self.state))
        return copied


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _takes_grad_scale(optimizer: torch.optim.Optimizer) -> bool:
    # Set by torch on the optimizers whose fused kernel divides by grad_scale; copies lose it.
    supported = getattr(optimizer, "_step_supports_amp_scaling", False)
    return supported and all(group.get("fused") for group in optimizer.param_groups)


def _check(optimizer: torch.optim.Optimizer, transform: GradientTransform) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        inside = ", as its attribute .optimizer is" if hasattr(optimizer, "optimizer") else ""
        raise UsageError(f"attach: expected a torch optimizer{inside}, got {type(optimizer).__name__}. Pass that one.")
    if not isinstance(transform, GradientTransform):
        raise UsageError(
            f"attach: expected a gradient transform, got {type(transform).__name__}. "
            "Pass one, as clip_by_global_norm(1.0), or several in chain(...)."
        )
    if (present := attachment_of(optimizer)) is not None:
        raise UsageError(
            f"attach: expected an optimizer without a transform, got one with {present._transform.name}. "
            "Detach that first, or attach one chain(...) of all."
        )
    if transform.skips and isinstance(optimizer, torch.optim.LBFGS):
        raise NotApplicableError(
            f"attach: expected an optimizer that can skip a step for {transform.name}, got LBFGS, "
            "which is under way when it meets the gradient. Use transforms that do not skip, as zero_nonfinite()."
        )
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise NotApplicableError(
            "attach: expected an optimizer whose steps are not differentiated, got differentiable=True. "
            "Clip within the graph instead."
        )
    for parameter in _parameters(optimizer):
        for mark, reason in _FOREIGN.items():
            if hasattr(parameter, mark):
                raise NotApplicableError(
                    f"attach: expected parameters whose gradients are here at the optimizer's step, got others: "
                    f"{reason}."
                )
        sharded_dims(parameter)  # refuses DTensors that hold partial sums
