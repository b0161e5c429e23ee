"""The probability model of a deep belief network: directed layers below a restricted Boltzmann machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.gibbs import gibbs
from steadygrad.boltzmann.learning import Learner

__all__ = ["Stack", "up_down"]

_DREAM_STEPS = 3  # Gibbs steps of the top between wake and sleep; Hinton et al. 2006 begin with 3


@dataclass(eq=False)
class Stack:
    """Directed layers below an undirected top.

    Greedy training leaves both directions of a layer tied; the up-down algorithm unties them.

    Attributes:
        up: Machines whose hidden side infers each layer from the one below: ``Q(h_l | h_{l-1})``.
        down: Machines whose visible side generates each layer from the one above: ``P(h_{l-1} | h_l)``.
        top: The topmost machine.
    """

    up: list[Machine]
    down: list[Machine]
    top: Machine

    @classmethod
    def tied(cls, machines: list[Machine]) -> Stack:
        """Return the stack of greedily trained machines; the directions get copies of their own."""
        return cls([m.to() for m in machines[:-1]], [m.to() for m in machines[:-1]], machines[-1])

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters of the directed layers by name."""
        sides: Mapping[str, list[Machine]] = {"up": self.up, "down": self.down}
        return {f"{s}.{i}.{k}": v for s, ms in sides.items() for i, m in enumerate(ms) for k, v in m.parameters.items()}

    def to(self, dtype: torch.dtype | None = None) -> Stack:
        """Return a copy, in another dtype if one is given."""
        return Stack([m.to(dtype) for m in self.up], [m.to(dtype) for m in self.down], self.top.to(dtype))

    def encode(self, visible: Tensor) -> Tensor:
        """Return the means of the layer below the top, passed up as means."""
        for machine in self.up:
            visible = machine.hidden.mean_(machine.hidden_field(visible))
        return visible

    def decode(self, states: Tensor) -> Tensor:
        """Return the means of the data for states of the layer below the top, passed down as means."""
        for machine in reversed(self.down):
            states = machine.visible.mean_(machine.visible_field(states))
        return states

    def generate(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """Return means of the data for states of the layer below the top, with states drawn in the layers between."""
        for machine in reversed(self.down[1:]):
            states = machine.visible.sample_(machine.visible_field(states), generator)
        return self.down[0].visible.mean_(self.down[0].visible_field(states)) if self.down else states

    def log_weights(self, visible: Tensor, draws: int, seed: int) -> Tensor:
        """Return ``log P*(v, h) - log Q(h | v)`` for states ``h`` drawn from ``Q``, shape ``(draws, rows)``.

        Its mean less the top's ``log Z`` estimates the variational bound on ``log P(v)``. All rows share the random
        numbers of a draw, so that a row's value does not depend on the rows around it.

        Reference:
            Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, 2008, eq. 26.
        """
        generator = torch.Generator(visible.device).manual_seed(seed)
        found = []
        for _ in range(draws if self.up else 1):
            below, total = visible, visible.new_zeros(len(visible))
            for up, down in zip(self.up, self.down, strict=True):
                field = up.hidden_field(below)
                noise = torch.rand(up.hidden.size, generator=generator, device=visible.device)
                above = (noise < field.sigmoid()).to(field)
                total += down.visible.log_prob(below, down.visible_field(above)) - up.hidden.log_prob(above, field)
                below = above
            found.append(total - self.top.free_energy(below))
        return torch.stack(found)

    @torch.no_grad()
    def wake(self, visible: Tensor, rate: float, generator: torch.Generator) -> Tensor:
        """Teach the downward layers from states inferred upwards, and return those of the layer below the top.

        Reference:
            Hinton, Osindero, Teh, A Fast Learning Algorithm for Deep Belief Nets, 2006, appendix B.
        """
        for up, down in zip(self.up, self.down, strict=True):
            above = up.hidden.sample_(up.hidden_field(visible), generator)
            predicted = down.visible.mean_(down.visible_field(above))
            surprise = (down.visible.observed(visible) - down.visible.observed(predicted)) * (rate / len(visible))
            down.weight.addmm_(surprise.t(), above)
            down.visible.add_({"bias": surprise.sum(0) * down.visible.scale})
            visible = above
        return visible

    @torch.no_grad()
    def sleep(self, states: Tensor, rate: float, generator: torch.Generator) -> None:
        """Teach the upward layers from states that the top and the downward layers dream up."""
        for up, down in zip(reversed(self.up), reversed(self.down), strict=True):
            below = down.visible.sample_(down.visible_field(states), generator)
            predicted = up.hidden.mean_(up.hidden_field(below))
            surprise = (states - predicted) * (rate / len(states))
            up.weight.addmm_(up.visible.observed(below).t(), surprise)
            up.hidden.add_({"bias": surprise.sum(0)})
            states = below


def up_down(
    stack: Stack, learner: Learner, batches: Iterable[tuple[Tensor, Tensor | None]], rate: float, size: int
) -> None:
    """Run one pass of the up-down algorithm in place; the top learns as its own method says.

    Args:
        stack: The model, its top being the learner's machine.
        learner: Teaches the top.
        batches: Data, and one-hot labels where the top has label units behind the others.
        rate: Learning rate of a batch of ``size`` rows; of smaller ones as much less.
        size: Rows of a usual batch.

    Reference:
        Hinton, Osindero, Teh, A Fast Learning Algorithm for Deep Belief Nets, 2006, appendix B.
    """
    for visible, labels in batches:
        scaled = rate * len(visible) / size
        states = stack.wake(visible, scaled, learner.generator)
        width = states.shape[1]
        seen = states if labels is None else torch.cat([states, labels.to(states)], 1)
        learner.step(seen, scaled)
        dreamt = gibbs(learner.machine, seen, _DREAM_STEPS, learner.generator)
        stack.sleep(dreamt[:, :width], scaled, learner.generator)
