"""A stack of machines as an ordinary feed-forward network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.joint import Joint
from steadygrad.boltzmann.units import Gaussian, NoisyReLU
from steadygrad.errors import UsageError

__all__ = ["linear_of", "to_sequential"]


@torch.no_grad()
def linear_of(machine: Machine) -> tuple[Tensor, Tensor]:
    """Return weight ``(hidden, visible)`` and bias ``(hidden,)`` of the linear layer that gives the hidden field.

    The origin and scale of Gaussian visible units are folded into it.
    """
    weight, bias = machine.weight.t().clone(), machine.hidden.offset.clone()
    if isinstance(machine.visible, Joint):
        raise UsageError("to_sequential: expected visible units of one kind, got several side by side.")
    if isinstance(machine.visible, Gaussian):
        weight = weight / machine.visible.sigma
        bias = bias - weight @ machine.visible.bias
    return weight, bias


class Dropout(nn.Dropout):
    """Dropout by uniform random numbers, which torch draws several times faster than Bernoulli ones on a processor."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the states with some dropped in training, and as they are otherwise."""
        if not self.training:
            return states
        kept = torch.rand(states.shape, device=states.device) >= self.p
        return states * kept.to(states.dtype).div_(1 - self.p)


def to_sequential(
    machines: Sequence[Machine], head: nn.Module | None = None, dropout: float = 0.0, input_dropout: float = 0.0
) -> nn.Sequential:
    """Return ``Linear, Sigmoid, (Dropout), Linear, Sigmoid, ...`` with copies of the machines' parameters.

    Weights that feed on dropped-out units stay as they are, since torch scales what is kept.

    Args:
        machines: From the data upwards.
        head: What follows, as ``nn.Linear(2000, 10)``.
        dropout: Share of hidden units dropped in training.
        input_dropout: Share of inputs dropped in training.
    """
    layers: list[nn.Module] = [Dropout(input_dropout)] if input_dropout else []
    for machine in machines:
        weight, bias = linear_of(machine)
        linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        layers += [linear, nn.ReLU() if isinstance(machine.hidden, NoisyReLU) else nn.Sigmoid()]
        if dropout:
            layers.append(Dropout(dropout))
    return nn.Sequential(*layers, *([head] if head is not None else []))
