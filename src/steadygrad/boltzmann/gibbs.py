"""Where the negative statistics come from: contrastive divergence, persistent chains, parallel tempering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from steadygrad.boltzmann.annealing import Path
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.units import Units

__all__ = ["CD", "PCD", "Chains", "Tempering", "gibbs"]


def gibbs(machine: Machine, visible: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return visible states after ``steps`` times sampling hidden from visible and visible from hidden units."""
    for _ in range(steps):
        hidden = machine.hidden.sample_(machine.hidden_field(visible), generator)
        visible = machine.visible.sample_(machine.visible_field(hidden), generator)
    return visible


class Chains(Protocol):
    """Gives states of the model at each learning step."""

    def advance(self, machine: Machine, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return visible states that stand for the model, and the hidden means given them.

        Args:
            machine: The model.
            hidden: Hidden states drawn from the batch of data, shape ``(rows, hidden)``; left as they are.
            generator: Where chance comes from.
        """
        ...

    def visible_states(self, machine: Machine, generator: torch.Generator) -> Tensor | None:
        """Return visible states of the chains, in float32 or more; None if none are kept."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what has to be kept to go on exactly, by name; the tensors themselves."""
        ...


@dataclass
class CD:
    """Contrastive divergence: ``k`` Gibbs steps from the data.

    Attributes:
        k: Gibbs steps.

    Reference:
        Hinton, Training Products of Experts by Minimizing Contrastive Divergence, 2002, sec. 3.
    """

    k: int = 1

    def advance(self, machine: Machine, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the states ``k`` steps after the data's."""
        visible = _from_hidden(machine, hidden, self.k, generator)
        return visible, machine.hidden.mean_(machine.hidden_field(visible))

    def visible_states(self, machine: Machine, generator: torch.Generator) -> Tensor | None:
        """Nothing is kept."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Nothing is kept."""
        return {}


@dataclass
class PCD:
    """Persistent contrastive divergence: chains that go on from update to update.

    Their number stays the same whatever the batch, and negative statistics are divided by it.

    Attributes:
        hidden: Hidden states of the chains, shape ``(chains, hidden)``. Keeping these saves a product an update.
        k: Gibbs steps an update.

    Reference:
        Tieleman, Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient, 2008, sec. 3.
    """

    hidden: Tensor
    k: int = 1

    def advance(self, machine: Machine, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Advance the chains by ``k`` steps."""
        visible = _from_hidden(machine, self.hidden.to(machine.weight.dtype), self.k, generator)
        mean, states = machine.hidden.mean_and_sample_(machine.hidden_field(visible), generator)
        self.hidden.copy_(states)
        return visible, mean

    def visible_states(self, machine: Machine, generator: torch.Generator) -> Tensor | None:
        """Return visible states given the hidden ones."""
        return _from_hidden(machine, self.hidden, 1, generator)

    def state(self) -> dict[str, Tensor]:
        """The chains."""
        return {"chains": self.hidden}


def _from_hidden(machine: Machine, hidden: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return visible states: drawn from hidden ones, then ``steps - 1`` Gibbs steps on."""
    visible = machine.visible.sample_(machine.visible_field(hidden), generator)
    return gibbs(machine, visible, steps - 1, generator)


@dataclass
class Tempering:
    """Parallel tempering: every chain has replicas at lower ``beta`` that mix faster, and neighbors swap states.

    The path of ``beta`` runs from the base rates of the visible units to the machine.

    Attributes:
        visible: States, shape ``(replicas, chains, visible)``, ``beta`` rising from 0 to 1.
        base: Visible units of the base.
        k: Gibbs steps, each with one round of swaps, an update.
        swap_rate: Accepted part of the swaps tried at the last update.

    Reference:
        Desjardins et al., Tempered Markov Chain Monte Carlo for Training of RBMs, 2010, sec. 3.
    """

    visible: Tensor
    base: Units
    k: int = 1
    swap_rate: float = field(default=0.0, init=False)

    def advance(self, machine: Machine, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Advance and swap ``k`` times and return the states at ``beta = 1``, with the hidden means given them."""
        replicas, chains, size = self.visible.shape
        path = Path(machine, self.base.to(machine.weight.dtype))
        betas = torch.linspace(0, 1, replicas, dtype=machine.weight.dtype, device=machine.weight.device)
        column = betas.repeat_interleave(chains)[:, None]
        states = self.visible.reshape(-1, size).to(machine.weight.dtype)
        for _ in range(self.k):
            states = path.step(machine.hidden_field(states), column, generator)
            states = self._swap(path, states.view(replicas, chains, size), betas, generator).view(-1, size)
        self.visible.copy_(states.view_as(self.visible))
        visible = states.view_as(self.visible)[-1].clone()
        return visible, machine.hidden.mean_(machine.hidden_field(visible))

    def visible_states(self, machine: Machine, generator: torch.Generator) -> Tensor | None:
        """Return the states at ``beta = 1``."""
        return self.visible[-1]

    def _swap(self, path: Path, states: Tensor, betas: Tensor, generator: torch.Generator) -> Tensor:
        """Swap neighbors, pairs (0, 1), (2, 3), ... then (1, 2), (3, 4), ..., each by the Metropolis rule."""
        replicas, chains, size = states.shape
        accepted = tried = 0
        for first in (0, 1):
            low = torch.arange(first, replicas - 1, 2, device=states.device)
            if not len(low):
                continue
            flat = states.reshape(-1, size)
            field = path.machine.hidden_field(flat)
            own = path.log_weight(flat, field, betas.repeat_interleave(chains)[:, None]).view(replicas, chains)
            other = torch.empty_like(own)
            for shift, index in ((1, low), (-1, low + 1)):
                rows = (index[:, None] * chains + torch.arange(chains, device=states.device)).reshape(-1)
                beta = betas[index + shift].repeat_interleave(chains)[:, None]
                other[index] = path.log_weight(flat[rows], field[rows], beta).view(-1, chains)
            gain = other[low] + other[low + 1] - own[low] - own[low + 1]
            noise = torch.empty_like(gain, dtype=torch.float32).uniform_(generator=generator)
            swap = (noise.log() < gain)[:, :, None]
            down, up = states[low], states[low + 1]
            states = states.clone()
            states[low], states[low + 1] = torch.where(swap, up, down), torch.where(swap, down, up)
            accepted, tried = accepted + int(swap.sum()), tried + swap.numel()
        self.swap_rate = accepted / max(tried, 1)
        return states

    def state(self) -> dict[str, Tensor]:
        """All replicas."""
        return {"chains": self.visible}
