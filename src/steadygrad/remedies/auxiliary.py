"""Losses on inner layers, whose gradients reach the depths on a shorter way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.plan import Change, Plan
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.surgery import head_weights, input_shapes, readers
from steadygrad.signals.blueprint import plain_model, read_blueprint
from steadygrad.training import Batch, first_batch, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["AuxiliaryHead", "AuxiliaryLoss", "WithAuxiliary", "auxiliary_loss", "auxiliary_outputs", "plan_auxiliary"]


class AuxiliaryHead(nn.Linear):
    """A linear output of its own for an inner layer, which keeps what it last gave.

    Args:
        features: Features or channels of the inner layer.
        outputs: Columns of the model's output.
        dims: Dimensions of the model's output; those between the first and the features that are too many are averaged.
        channels_first: Whether the features lie along dimension 1, as behind convolutions.
    """

    def __init__(self, features: int, outputs: int, dims: int, channels_first: bool) -> None:
        super().__init__(features, outputs)
        self.dims = dims
        self.channels_first = channels_first
        self.output: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return an output of the model's own shape."""
        if self.channels_first:
            hidden = hidden.flatten(2).mean(2)
        while hidden.dim() > self.dims:
            hidden = hidden.mean(1)
        return super().forward(hidden)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"output": None}  # it hangs on the graph of a forward pass, which cannot be copied


class Tap:
    """A forward pre-hook that shows a layer's input to its child ``auxiliary``, in training mode only."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Let the head answer; the input stays as it is."""
        if module.training:
            head = module.get_submodule("auxiliary")
            head.output = head(args[0])

    def __repr__(self) -> str:
        return "auxiliary(input) if training"


class WithAuxiliary(NamedTuple):
    """A model's output, and those of its auxiliary heads."""

    main: Any
    heads: list[Tensor]


def auxiliary_outputs(model: nn.Module) -> list[Tensor]:
    """Take what the auxiliary heads gave in the last forward pass in training mode, in order; none in evaluation mode.

    For training loops of one's own::

        loss = criterion(model(x), y)
        loss = loss + 0.3 * sum(criterion(output, y) for output in auxiliary_outputs(model))
    """
    outputs = []
    for module in model.modules():
        if isinstance(module, AuxiliaryHead) and module.output is not None:
            outputs.append(module.output)
            module.output = None
    return outputs


@dataclass(frozen=True, slots=True)
class AuxiliaryLoss:
    """``loss(main) + weight * sum of loss(head)``; the plain loss where there are no heads' outputs."""

    loss: Callable[[Any, Any], Tensor]
    weight: float

    def __call__(self, output: Any, target: Any) -> Tensor:
        """Return the loss."""
        if not isinstance(output, WithAuxiliary):
            return self.loss(output, target)
        extra = [self.weight * self.loss(head, target) for head in output.heads]
        return sum(extra, self.loss(output.main, target))


@dataclass(frozen=True, slots=True)
class _Forward:
    """The forward pass of ``inner``, with the outputs of the heads where there are any."""

    inner: TrainingSetup

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        auxiliary_outputs(model)  # those of a pass that nobody asked
        output, heads = run_model(self.inner, model, batch), auxiliary_outputs(model)
        return WithAuxiliary(output, heads) if heads else output


def plan_auxiliary(setup: TrainingSetup, heads: int = 2) -> Plan:
    """Plan linear heads on inner layers, evenly spaced over the depth.

    A head reads what goes into a Linear or Conv module, in training mode only; the model's own output and its
    parameters stay. :meth:`Plan.apply_` returns what takes the heads off again for inference, though they cost nothing
    but memory there.

    Raises:
        NotApplicableError: If there are fewer inner layers than heads, or the output is no matrix or sequence.
    """
    if heads < 1 or heads != int(heads):
        raise UsageError(f"auxiliary_loss: expected heads to be a whole number above 0, got {heads}. Start with 2.")
    batch = first_batch(setup)
    blueprint, shapes = read_blueprint(setup, batch), input_shapes(setup, batch)
    shape = blueprint.output.shape if blueprint.output is not None else ()
    fits = [
        module
        for module, calls in readers(setup.model, blueprint).items()
        if len(calls) == 1 and not head_weights(blueprint).issuperset(calls) and _fits(module, shapes[module], shape)
    ]
    if len(fits) < heads:
        raise NotApplicableError(
            f"auxiliary_loss: expected {int(heads)} inner layers from which a linear head can give an output of shape "
            f"{shape}, found {len(fits)}. Outputs of shape (batch, columns) and sequences of them are supported."
        )
    chosen = [fits[(i + 1) * len(fits) // (int(heads) + 1)] for i in range(int(heads))]
    names = {module: name for name, module in plain_model(setup.model).named_modules()}
    changes = []
    for module in chosen:
        weight, convolution = module.get_parameter("weight"), isinstance(module, _ConvNd)
        features = shapes[module][1 if convolution else -1]
        head = AuxiliaryHead(features, shape[-1], len(shape), convolution).to(weight.device, weight.dtype)
        changes += [Change(names[module], "child", "auxiliary", head), Change(names[module], "before", "tap", Tap())]
    return Plan(tuple(changes))


def _fits(module: nn.Module, hidden: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether a linear head can turn the input of a module into an output of that shape."""
    if isinstance(module, _ConvNd):
        return len(output) == 2 and len(hidden) == len(module.kernel_size) + 2
    return 2 <= len(output) <= len(hidden)


@remedy(
    Card(
        name="auxiliary_loss",
        treats=(Symptom.VANISHING,),
        site=Site.MODEL,
        summary="Add linear heads on inner layers and their losses to the loss, while training.",
        formula="loss(output) + 0.3 * sum of loss(head(hidden)) over the heads",
        not_for="The layers behind the last head; explosion.",
        hurts="Inner layers are pulled towards features that separate linearly at once. Losses before and after "
        "cannot be compared.",
        cost="one small matrix multiplication a head while training, none in evaluation mode",
        reference="Szegedy et al. 2015 (GoogLeNet), sec. 5, https://arxiv.org/abs/1409.4842; Lee et al. 2015, "
        "Deeply-Supervised Nets, https://arxiv.org/abs/1409.5185",
    )
)
def auxiliary_loss(setup: TrainingSetup, *, weight: float = 0.3, heads: int = 2) -> TrainingSetup:
    """Train linear heads on inner layers along; see :func:`plan_auxiliary`.

    Args:
        setup: The set-up to change.
        weight: Factor on each head's loss, above 0; GoogLeNet takes 0.3.
        heads: Number of heads; GoogLeNet has 2, deeply-supervised nets one on every layer.

    Raises:
        NotApplicableError: If the forward pass returns the loss itself, or no inner layer fits.
    """
    if not 0 < weight < math.inf:
        raise UsageError(f"auxiliary_loss: expected weight above 0 and finite, got {weight}. Start with 0.3.")
    if setup.loss is None:
        raise NotApplicableError(
            "auxiliary_loss: expected a set-up with a loss, but its forward returns the loss itself. Add the losses of "
            "the heads there, with plan_auxiliary and auxiliary_outputs."
        )
    plan_auxiliary(setup, heads).apply_(setup.model)
    inner = setup.replace(model=nn.Identity(), train=(), validation=None)  # its forward alone is needed
    return setup.replace(forward=_Forward(inner), loss=AuxiliaryLoss(setup.loss, weight))
