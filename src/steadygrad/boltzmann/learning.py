"""One learning step of a restricted Boltzmann machine, and what is kept between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.gibbs import Chains
from steadygrad.boltzmann.units import Units, column_mean, kernels_for
from steadygrad.errors import UsageError

__all__ = ["Gradient", "Learner", "Rules", "Schedule", "activity", "check_schedule", "gradient", "value_at"]

Schedule = float | Mapping[float, float]
"""A number, or numbers by epoch with straight lines between: ``{0: 0.5, 5: 0.9}``."""

_OFF = 0.05  # a unit that never leaves this distance from 0 or 1 never switches
_FORGET = 0.01  # share of a batch in the running means, Melchior et al. 2016, sec. 4.3
_VARIANCE_STEP = 0.05  # largest change of a log variance in one step: it must not run ahead of the weights
_LEAST_VARIANCE = 1e-4  # of the data's: a unit that collapses onto single data points learns nothing more


def value_at(schedule: Schedule, epoch: float) -> float:
    """Return a schedule's value after ``epoch`` epochs; beyond its ends it stays as it is there.

    Example:
        >>> value_at({0: 0.5, 4: 0.9}, 1)
        0.6
    """
    if not isinstance(schedule, Mapping):
        return float(schedule)
    knots = sorted(schedule.items())
    for (left, low), (right, high) in pairwise(knots):
        if left <= epoch < right:
            return low + (high - low) * (epoch - left) / (right - left)
    return float(knots[0][1] if epoch < knots[0][0] else knots[-1][1])


def check_schedule(name: str, schedule: Schedule, below: float) -> None:
    """Check that all numbers of a schedule lie in [0, ``below``).

    Raises:
        UsageError: If one does not.
    """
    values = schedule.values() if isinstance(schedule, Mapping) else [schedule]
    wrong = [value for value in values if not 0 <= value < below]
    if wrong or not values:
        bound = "finite" if below == math.inf else f"below {below:g}"
        raise UsageError(f"{name}: expected numbers of at least 0 and {bound}, got {schedule!r}. Try 0.1.")


@dataclass(frozen=True)
class Rules:
    """How a step turns a gradient into a change; rates and momentum come with each step.

    Attributes:
        weight_decay: Shrinks weights by this share of themselves times the learning rate; biases are left alone.
        l1: Moves weights towards zero by this times the learning rate, and to zero if they are nearer; no biases.
        sparsity_target: Wanted mean activity of the hidden units; None leaves it free.
        sparsity_cost: Factor of target minus running mean activity in the gradient of the hidden biases.
        centering: Whether to follow the gradient of the centered machine.

    Reference:
        Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2010, sec. 7 to 11. Melchior et al., How
        to Center Deep Boltzmann Machines, 2016, sec. 4.
    """

    weight_decay: float = 0.0
    l1: float = 0.0
    sparsity_target: float | None = None
    sparsity_cost: float = 0.1
    centering: bool = True


@dataclass(frozen=True, eq=False)
class Gradient:
    """The direction of a step.

    Attributes:
        left: Shape ``(n, visible)``; the weights' part is ``left^T right``, which an update can add in one product.
        right: Shape ``(n, hidden)``.
        biases: ``visible.*`` and ``hidden.*``; all biases of a side are one entry.
    """

    left: Tensor
    right: Tensor
    biases: dict[str, Tensor]

    @property
    def weight(self) -> Tensor:
        """Shape ``(visible, hidden)``."""
        return self.left.t() @ self.right


def gradient(
    machine: Machine, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], centers: tuple[Tensor, Tensor] | None
) -> Gradient:
    """Return the direction of a step: the gradient of the mean log-likelihood, estimated, preconditioned.

    Without ``centers`` it is the gradient itself, times the variance for the biases of Gaussian units. Positive and
    negative statistics are each divided by their own number of rows.

    Args:
        machine: The model.
        data: Visible states of the data and hidden means given them.
        model: Visible states that stand for the model, and hidden means given them.
        centers: Running means of what the weights see of the visible and hidden units.
    """
    biases: dict[str, Tensor] = {}
    sides = (("visible", machine.visible, 0, machine.weight), ("hidden", machine.hidden, 1, machine.weight.t()))
    for side, units, own, weight in sides:
        positive, negative = (units.gradients(pair[own], pair[1 - own], weight) for pair in (data, model))
        biases |= {f"{side}.{name}": positive[name] - negative[name] for name in positive}
    scale = machine.visible.scale
    shift = biases["visible.bias"] * scale  # the bias in units of its own scale
    left = [machine.visible.observed(pair[0]) for pair in (data, model)]
    right = [data[1] / len(data[1]), model[1] / -len(model[1])]
    if centers is not None:  # two more rows subtract the centers: dW = <(v - m)(h - l)>, Melchior et al. 2016, eq. 9
        m, n = (center.to(machine.weight) for center in centers)
        left += [-m[None], -shift.to(m)[None]]
        right += [biases["hidden.bias"].to(m)[None], n[None]]
    found = Gradient(torch.cat(left), torch.cat(right), biases)
    if centers is not None:
        shift = shift - _sandwich(found.left, found.right, n)
        biases["hidden.bias"] = biases["hidden.bias"] - _sandwich(found.right, found.left, m)
    biases["visible.bias"] = shift * scale
    return found


class Learner:
    """Teaches a machine, batch by batch.

    Attributes:
        machine: The model, changed in place; float32 or float64.
        chains: Where negative statistics come from.
        generator: Where chance comes from.
        rules: See :class:`Rules`.
        precision: dtype of the products; the parameters and the changes stay in the machine's.
        base: Visible units as they were before learning; variances may not fall far below theirs.
        velocity: Last change of every parameter, for momentum.
        centers: Running means of what the weights see of the visible and hidden units.
    """

    def __init__(
        self,
        machine: Machine,
        chains: Chains,
        generator: torch.Generator,
        rules: Rules = Rules(),
        precision: torch.dtype = torch.float32,
        base: Units | None = None,
    ) -> None:
        self.machine, self.chains, self.generator, self.rules = machine, chains, generator, rules
        self._working = machine if precision == machine.weight.dtype else machine.to(precision)
        self.velocity: dict[str, Tensor] = {}
        self.centers = (torch.zeros_like(machine.weight[:, 0]), torch.zeros_like(machine.weight[0]))
        self._started = torch.zeros((), dtype=torch.bool)
        start = (base or machine.visible).parameters
        named = {k: v for k, v in machine.visible.parameters.items() if k.endswith("log_variance")}
        self._floors = [(v, start[k].to(v) + math.log(_LEAST_VARIANCE)) for k, v in named.items()]
        self._last: tuple[Gradient, float] | None = None

    @torch.no_grad()
    def step(self, batch: Tensor, rate: float, momentum: float = 0.0) -> Tensor:
        """Learn from one batch and return the hidden means given it, shape ``(rows, hidden)``.

        Args:
            batch: Visible states, shape ``(rows, visible)``.
            rate: Learning rate. For a batch smaller than usual pass a rate smaller by as much, so that all rows count
                alike.
            momentum: Share of the last change that is repeated, in [0, 1).
        """
        working, rules = self._working, self.rules
        visible = batch.to(working.weight.dtype)
        mean, states = working.hidden.mean_and_sample_(working.hidden_field(visible), self.generator)
        sample, sample_mean = self.chains.advance(working, states, self.generator)
        self._move_centers(visible, mean)
        centers = self.centers if rules.centering else None
        change = gradient(working, (visible, mean), (sample, sample_mean), centers)
        if rules.sparsity_target is not None:
            change.biases["hidden.bias"].add_(rules.sparsity_target - self.centers[1], alpha=rules.sparsity_cost)
        self._apply(change, rate, momentum)
        if working is not self.machine:
            working.visible.copy_(self.machine.visible)
            working.hidden.copy_(self.machine.hidden)
        return mean

    def _move_centers(self, visible: Tensor, mean: Tensor) -> None:
        new = (self._working.visible.observed(visible), self._working.hidden.observed(mean))
        for center, states in zip(self.centers, new, strict=True):
            share = _FORGET if bool(self._started) else 1.0
            center.lerp_(column_mean(states).to(center), share)
        self._started.fill_(True)

    def _apply(self, change: Gradient, rate: float, momentum: float) -> None:
        machine, biases, step = self.machine, change.biases, rate
        self._last = change, rate
        if momentum:
            for name, value in {"weight": machine.weight, **biases}.items():
                if name not in self.velocity:
                    self.velocity[name] = torch.zeros_like(value, dtype=machine.weight.dtype)
        self._move_weight(change, rate, momentum)
        if momentum:
            for name, value in biases.items():
                self.velocity[name].mul_(momentum).add_(value, alpha=rate)
            biases, step = self.velocity, 1.0
        for side, units in (("visible", machine.visible), ("hidden", machine.hidden)):
            parts = {k.removeprefix(f"{side}."): v * step for k, v in biases.items() if k.startswith(side)}
            limited = {k: v.clamp(-_VARIANCE_STEP, _VARIANCE_STEP) if "variance" in k else v for k, v in parts.items()}
            units.add_(limited)
        for log_variance, floor in self._floors:
            torch.maximum(log_variance, floor, out=log_variance)

    def _move_weight(self, change: Gradient, rate: float, momentum: float) -> None:
        """Move the weights, and those the products are computed with."""
        weight, working, rules = self.machine.weight, self._working.weight, self.rules
        velocity = self.velocity["weight"] if momentum else None
        kept = 1 - rate * rules.weight_decay
        if working.dtype == torch.bfloat16 and not rules.l1 and (kernels := kernels_for(weight)):
            kernels.step_(weight, velocity, change.weight, working, rate, momentum, kept)
            return
        if kept != 1:
            weight.mul_(kept)
        if velocity is None:
            _add_product(weight, change, 1.0, rate)
        else:
            _add_product(velocity, change, momentum, rate)
            weight.add_(velocity)
        if rules.l1:  # after the gradient, so that weights come to rest at 0
            weight.copy_(F.softshrink(weight, rate * rules.l1))
        if working is not weight:
            working.copy_(weight)

    def update_ratio(self) -> float:
        """Return RMS of the last change of the weights over RMS of the weights; near 1e-3 is well (Hinton, sec. 7)."""
        if self._last is None:
            return 0.0
        change, rate = self._last
        return rate * float(change.weight.float().norm() / self.machine.weight.norm())

    def state(self) -> dict[str, Tensor]:
        """Return everything but the machine's parameters that has to be kept to go on exactly."""
        velocity = {f"velocity.{name}": value for name, value in self.velocity.items()}
        centers = {"center.visible": self.centers[0], "center.hidden": self.centers[1], "started": self._started}
        return velocity | centers | self.chains.state() | {"random": self.generator.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        for name, value in state.items():
            if name.startswith("velocity."):
                self.velocity[name.removeprefix("velocity.")] = value.clone()
        for name, place in {
            k: v for k, v in self.state().items() if k in state and not k.startswith("velocity.")
        }.items():
            if name != "random":
                if place.shape != state[name].shape:
                    raise UsageError(
                        f"{name}: expected shape {tuple(place.shape)}, got {tuple(state[name].shape)}. "
                        "Go on with the batch size and chains that the training began with."
                    )
                place.copy_(state[name])
        self.generator.set_state(state["random"].cpu())


def activity(means: Tensor, bounded: bool) -> dict[str, float]:
    """Return how active hidden units are: their mean, and shares of dead, always active and saturated ones.

    Args:
        means: Hidden means of some batches, shape ``(rows, hidden)``.
        bounded: Whether they are probabilities; rectified units cannot be stuck or saturated.
    """
    dead = (means.amax(0) < (_OFF if bounded else 1e-6)).float().mean()
    found = {"hidden_activity": means.mean(), "dead_units": dead}
    if bounded:
        found["stuck_units"] = (means.amin(0) > 1 - _OFF).float().mean()
        found["saturated"] = ((means - 0.5).abs() > 0.49).float().mean()
    return {name: float(value) for name, value in found.items()}


def _sandwich(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """Return ``left^T (right vector)``, in float32 or more; torch's products of bfloat16 with vectors are slow."""
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.dtype == torch.bfloat16 and (kernels := kernels_for(left)):
        return kernels.sandwich(left, right, vector.to(wide))
    return left.to(wide).t() @ (right.to(wide) @ vector.to(wide))


def _add_product(place: Tensor, change: Gradient, keep: float, rate: float) -> None:
    """Set ``place`` to ``keep`` times itself plus ``rate`` times the weights' change."""
    if place.dtype == change.left.dtype:
        place.addmm_(change.left.t(), change.right, beta=keep, alpha=rate)  # one pass over the weights
    else:
        if keep != 1:
            place.mul_(keep)
        place.add_(change.weight, alpha=rate)
