"""The profile of a network: how signal and gradient change from weight layer to weight layer.

A *stage* is one weight layer with what follows it up to the next. Forward, a stage's gain is the ratio of the signal
(RMS deviation over the batch) that enters the next weight layer to the one that entered it. Backward, it is the ratio
of the gradient norm that leaves it towards the input to the one that reached it. Norms and not RMS backward: a layer
that is an isometry keeps the norm of a gradient while it spreads over more or fewer units.

A network that branches has several *paths*, each as deep in weight layers as can be, that cover all weight layers
between them; a residual network has one, through every branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from steadygrad.records import Blueprint, Layer, LayerStats, Observation, Range, Role

__all__ = ["HEALTHY_DECADES", "UNDERFLOW", "WEIGHTED", "Stage", "Trend", "bypassed", "paths", "starts_at_zero", "trend"]

WEIGHTED = (Role.LINEAR, Role.RECURRENT, Role.ATTENTION)

# A layer is healthy by itself if it changes a scale by no more than 2 either way (TheDeepChecker, Ben Braiek and
# Khomh, TOSEM 2022: standard deviations of activations within [0.5, 2]).
HEALTHY_DECADES = math.log10(2.0)
# Below this a float32 gradient may become 0 in one more layer just by underflow. So may a signal that is this small a
# share of what came in: it drowns in the rounding of the mean that it deviates from.
UNDERFLOW, DROWNED = 1e-30, 1e-5


@dataclass(frozen=True, slots=True)
class Stage:
    """One weight layer and what follows it, or the output at the end of a path; None where a number was not seen.

    Attributes:
        name: Name of the weight layer; ``"output"`` at the end.
        signal: Signal that enters it.
        grad: Gradient norm per sample where its input comes from, or at its own output for a first layer.
    """

    name: str
    signal: float | None
    grad: float | None


@dataclass(frozen=True, slots=True)
class Trend:
    """How signal or gradient changes on its way along a path.

    Attributes:
        start: Its size where it sets out.
        end: Its size where it arrives, or at its peak if it grows.
        place: Name of the layer where that is.
        decades: ``log10(end / start)``; ``-inf`` if nothing arrives.
        steps: Stages between the two.
        layer: The layer that does most of it, or else the first whose own gain leaves the healthy band.
        gain: That layer's own gain.
        share: Share of ``decades`` that it alone explains, in [0, 1].
        own: ``log10`` of the own gain of every layer on the path.
    """

    start: float
    end: float
    place: str
    decades: float
    steps: int
    layer: str
    gain: float
    share: float
    own: dict[str, float]


_last: tuple[Blueprint, Observation, list[tuple[Stage, ...]]] | None = None


def paths(blueprint: Blueprint, observation: Observation) -> list[tuple[Stage, ...]]:
    """Return paths from input to output that cover all weight layers whose outputs were seen, the deepest first.

    The last answer is kept, because every rule of one judgement asks for the same.
    """
    global _last
    if _last is None or _last[0] is not blueprint or _last[1] is not observation:
        _last = blueprint, observation, _paths(blueprint, observation)
    return _last[2]


def _paths(blueprint: Blueprint, observation: Observation) -> list[tuple[Stage, ...]]:
    weighted = [
        layer.role in WEIGHTED and observation.layers[position].output is not None
        for position, layer in enumerate(blueprint.layers)
    ]
    entering = [_entering(layer, observation) for layer in blueprint.layers]
    for position, scale in _entries(blueprint).items():
        entering[position] = scale.std if math.isfinite(scale.std) else None
    return [_stages(blueprint, observation, chain, weighted, entering) for chain in _chains(blueprint, weighted)]


def trend(path: tuple[Stage, ...], backward: bool, growing: bool) -> Trend | None:
    """Follow the signal forward or the gradient backward along a path; None where it passes under two stages.

    Args:
        path: One of :func:`paths`.
        backward: Whether to follow the gradient down, else the signal up.
        growing: Whether to compare the start with the peak, else with the end.
    """
    seen = [(stage.name, size) for stage in path if (size := stage.grad if backward else stage.signal) is not None]
    if len(seen) < 3:
        return None
    seen = seen[::-1] if backward else seen
    sizes = [size for _, size in seen]
    if not sizes[0] > 0:
        return None
    # Forward, the change between two stages is the former's; backward the latter's, because it is the upper one.
    names = [name for name, _ in (seen[1:] if backward else seen[:-1])]
    lost = UNDERFLOW if backward else DROWNED * sizes[0]
    own = {
        name: math.log10(after) - math.log10(before) if after > 0 else -math.inf
        for name, before, after in zip(names, sizes, sizes[1:], strict=False)
        if before > 0 and (after > 0 or before > lost)
    }
    arrival = max(range(len(sizes)), key=sizes.__getitem__) if growing else len(sizes) - 1
    total = math.log10(sizes[arrival]) - math.log10(sizes[0]) if sizes[arrival] > 0 else -math.inf
    travelled = {name: own[name] for name in names[:arrival] if name in own}
    layer, share = _guilty(travelled, total, growing) if travelled else (names[0], 0.0)
    gain = 10 ** own.get(layer, 0.0)
    return Trend(sizes[0], sizes[arrival], seen[arrival][0], total, max(arrival, 1), layer, gain, share, own)


def starts_at_zero(stats: LayerStats) -> bool:
    """Whether all weights of a layer are 0 and get a gradient: one step, and it passes signal and gradient on.

    The head of some networks and the last layer of residual branches are made so on purpose (Zhang et al. 2019, Fixup).
    """
    learns = stats.weight_grad is not None and stats.weight_grad.abs_max > 0
    return stats.weight is not None and stats.weight.abs_max == 0 and learns


def bypassed(blueprint: Blueprint) -> set[int]:
    """Return the positions of calls all of whose readers read something else too: the network goes on without them.

    They end the branches of residual sums and gates; dropout and reshapes on the way do not matter.
    """
    readers, found = _readers(blueprint), set[int]()
    for position in reversed(range(len(readers))):
        others = [
            len(blueprint.layers[reader].follows) > 1
            or (blueprint.layers[reader].role is Role.OTHER and reader in found)
            for reader in readers[position]
        ]
        if others and all(others):
            found.add(position)
    return found


def _guilty(own: dict[str, float], total: float, growing: bool) -> tuple[str, float]:
    """Return the guilty layer and its share of ``total``."""
    strength = {name: decades if growing else -decades for name, decades in own.items()}
    finite = sum(s for s in strength.values() if math.isfinite(s))
    whole = abs(total) if math.isfinite(total) else finite  # where all of it underflowed: what could be seen
    worst = max(strength, key=strength.__getitem__)
    if math.isinf(strength[worst]):
        return worst, 1.0
    first = next((name for name, s in strength.items() if s > HEALTHY_DECADES), worst)
    layer = worst if strength[worst] > whole / 2 else first
    return layer, min(max(strength[layer] / whole, 0.0), 1.0) if whole > 0 else 0.0


def _chains(blueprint: Blueprint, weighted: list[bool]) -> list[list[int]]:
    """Cover the weight layers by chains of calls from an input to an output, the deepest first."""
    count = len(blueprint.layers)
    readers = _readers(blueprint)
    up = _deepest(range(count), lambda position: blueprint.layers[position].follows, weighted)
    down = _deepest(reversed(range(count)), readers.__getitem__, weighted)
    chains, covered = [], set[int]()
    for position in sorted(range(count), key=lambda p: -(up[p][0] + down[p][0])):
        if weighted[position] and position not in covered:
            chain = [*_walk(position, up)[:0:-1], *_walk(position, down)]
            covered.update(chain)
            chains.append(chain)
    return chains


def _readers(blueprint: Blueprint) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in blueprint.layers]
    for position, layer in enumerate(blueprint.layers):
        for source in layer.follows:
            readers[source].append(position)
    return readers


def _deepest(
    order: Iterable[int], neighbors: Callable[[int], Iterable[int]], weighted: list[bool]
) -> dict[int, tuple[int, int | None]]:
    """Return for every call how many weight layers the deepest chain up to it has, and its neighbor on that chain."""
    best: dict[int, tuple[int, int | None]] = {}
    for position in order:
        # Of equals the latest call: what a residual sum received last.
        depth, neighbor = max(((best[n][0], n) for n in neighbors(position)), default=(0, None))
        best[position] = (depth + weighted[position], neighbor)
    return best


def _walk(position: int | None, best: dict[int, tuple[int, int | None]]) -> list[int]:
    chain = []
    while position is not None:
        chain.append(position)
        position = best[position][1]
    return chain


def _stages(
    blueprint: Blueprint,
    observation: Observation,
    chain: list[int],
    weighted: list[bool],
    entering: list[float | None],
) -> tuple[Stage, ...]:
    stages = []
    for above, position in zip([None, *chain], chain, strict=False):
        if not weighted[position]:
            continue
        # The gradient on this path, and the signal of all that was added or joined.
        grad = _grad_norm(blueprint, observation, position if above is None else above)
        stages.append(Stage(blueprint.layers[position].name, entering[position], grad))
    last = chain[-1]
    signal = observation.output_signal if last == blueprint.head_layer else observation.layers[last].signal
    if starts_at_zero(observation.layers[last]):
        signal = None
    return (*stages, Stage("output", signal, _grad_norm(blueprint, observation, last)))


def _entries(blueprint: Blueprint) -> dict[int, Range]:
    """Return what enters each first weight layer by position; nothing if the two do not pair up."""
    first = [p for p, layer in enumerate(blueprint.layers) if layer.role in WEIGHTED and not layer.follows]
    return dict(zip(first, blueprint.entries, strict=True)) if len(first) == len(blueprint.entries) else {}


def _entering(layer: Layer, observation: Observation) -> float | None:
    signals = (observation.layers[source].signal for source in layer.follows)
    return max((signal for signal in signals if signal is not None), default=None)


def _grad_norm(blueprint: Blueprint, observation: Observation, position: int) -> float | None:
    grad = observation.layers[position].output_grad
    if grad is None or grad.nonfinite:
        return None
    return grad.rms * math.sqrt(grad.numel / max(blueprint.batch, 1))
