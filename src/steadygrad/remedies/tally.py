"""How often and how hard a transform acted, kept in its state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.remedies.gradients import State

__all__ = ["Deeds", "deeds", "new_tally", "recent_values", "tallied"]

WINDOW = 512  # steps: enough for a 99th percentile, and 4 KB
PERCENTILES = (10, 50, 90, 95, 99)
SUGGESTED = 95  # a bound that acts on one step in twenty: on spikes, not on the usual step


@dataclass(frozen=True, slots=True)
class Deeds:
    """What one transform has done.

    Attributes:
        name: The transform.
        steps: Steps that it has seen.
        acted: Steps on which it changed a gradient, or that it skipped.
        mean_factor: Mean of the smallest factor of each step on which it acted; 1 if it never did, 0 if it skips.
        smallest_factor: The smallest factor so far.
        percentiles: Of what it bounds, before it acted, over the last 512 finite steps or the transform's own history;
            empty if there were none.
    """

    name: str
    steps: int
    acted: int
    mean_factor: float
    smallest_factor: float
    percentiles: dict[int, float]

    @property
    def suggestion(self) -> float | None:
        """A threshold that would act on one step in twenty; None before the first step.

        Of clips by percentile or deviations, whose settings are no norms, it is one for ``clip_by_global_norm``.
        """
        return self.percentiles.get(SUGGESTED)

    def __str__(self) -> str:
        share = self.acted / max(self.steps, 1)
        sentence = f"{self.name}: acted on {self.acted} of {self.steps} steps ({share:.1%})"
        if self.acted:
            sentence += f", factor {self.mean_factor:.3g} on average, {self.smallest_factor:.3g} at least"
        if self.percentiles:
            sentence += "; before it " + ", ".join(f"p{p} {value:.3g}" for p, value in self.percentiles.items())
        return sentence


def new_tally(window: int = WINDOW) -> State:
    """Return an empty tally that remembers ``window`` values."""
    return {
        "steps": 0,
        "acted": 0,
        "factor_sum": 0.0,
        "smallest_factor": 1.0,
        "window": window,
        "recent": [],  # numbers, oldest first: to write one to a tensor takes 20 times as long
    }


def tallied(state: State, value: float, factor: float) -> State:
    """Return the state after one more step.

    Args:
        state: A state that holds a tally.
        value: What the transform bounds, before it acted; not remembered if it is not finite.
        factor: The smallest factor that it applied: 1 if it did nothing, 0 if it skipped the step.
    """
    state = state | {"steps": state["steps"] + 1}
    if math.isfinite(value):
        recent = state["recent"] = [*state["recent"], value]
        del recent[: -state["window"]]
    if factor != 1:
        state["acted"] += 1
        state["factor_sum"] += factor
        state["smallest_factor"] = min(state["smallest_factor"], factor)
    return state


def recent_values(state: State) -> Tensor:
    """Return the values remembered, oldest first. Shape ``(values,)``, float64."""
    return torch.tensor(state["recent"], dtype=torch.float64)


def deeds(name: str, state: State) -> Iterator[Deeds]:
    """Read the tallies in a state and in the states that it holds."""
    if "factor_sum" in state:
        values = recent_values(state)
        wanted = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
        found = values.quantile(wanted).tolist() if len(values) else []
        yield Deeds(
            name=name,
            steps=state["steps"],
            acted=state["acted"],
            mean_factor=state["factor_sum"] / state["acted"] if state["acted"] else 1.0,
            smallest_factor=state["smallest_factor"],
            percentiles=dict(zip(PERCENTILES, found, strict=False)),
        )
    for key, inner in state.items():
        if isinstance(inner, dict):
            yield from deeds(str(key).partition(" ")[2] or str(key), inner)
