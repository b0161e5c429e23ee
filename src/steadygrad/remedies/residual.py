"""Add residual connections around the hidden layers of an existing network."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Blueprint, Role, Symptom
from steadygrad.remedies.plan import Change, Plan, planned
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import input_shapes, module_of, sources_through
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training import first_batch
from steadygrad.training.setup import TrainingSetup

__all__ = ["BranchScale", "Shortcut", "residual"]

Kind = Literal["plain", "rezero", "skipinit", "layerscale"]
_LAYERSCALE = 1e-4  # Touvron et al. 2021 take 0.1 for 18 layers, 1e-5 for 24 and 1e-6 beyond; this lies between


class BranchScale(nn.Module):
    """A learned factor on a residual branch.

    Args:
        start: Value of every entry at first.
        shape: ``()`` for one number, or one number a channel, broadcastable to the branch.
        like: Gives dtype and device.
    """

    def __init__(self, start: float, shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(like.new_full(shape, start))

    def forward(self, branch: Tensor) -> Tensor:
        """Return the scaled branch."""
        return self.scale * branch

    def extra_repr(self) -> str:
        """Return the shape."""
        return f"shape={tuple(self.scale.shape)}"


class _Sum:
    """The running sum of a chain of blocks within a forward pass."""

    value: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # after an interrupted forward pass the sum is still held; it has no place in a copy


class Shortcut:
    """A forward pre-hook on one of consecutive weight layers that keep a running sum: ``y = x + scale * F(x)``.

    ``x`` is the input of one layer and ``F(x)`` what reaches the next: its output after activation, dropout or
    whatever stands between, module or function. No module is moved or wrapped, so state-dict keys and parameters stay.

    Args:
        total: The sum that the layers of a chain share.
        scale: Factor on the branch that ends here; None for the layer's own child ``branch``.
        first: Whether the sum starts here, so that no branch ends here.
        last: Whether nothing is added behind this layer.
    """

    def __init__(self, total: _Sum, scale: float | None, first: bool, last: bool) -> None:
        self.total = total
        self.scale = scale
        self.first = first
        self.last = last

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the sum so far in place of the layer's input."""
        x = args[0]
        if not self.first:
            branch = self.scale * x if self.scale is not None else module.get_submodule("branch")(x)
            x = self.total.value + branch
        self.total.value = None if self.last else x
        return (x, *args[1:])

    def __repr__(self) -> str:
        return "x" if self.first else f"x + {'branch' if self.scale is None else format(self.scale, '.3g')} * F(x)"


@planned(
    Card(
        name="residual",
        treats=(Symptom.VANISHING, Symptom.SATURATION),
        site=Site.MODEL,
        summary="Add residual connections around consecutive hidden layers of one shape.",
        formula="y = x + scale * F(x); plain: 1 / sqrt(blocks), rezero and skipinit: a learned number from 0, "
        "layerscale: a learned number a channel from 1e-4",
        not_for="Layers that change the width: no shortcut spans them.",
        hurts="With a fixed scale of 1 and no normalization the signal's mean square doubles with every block. Learned "
        "scales near 0 start slowly.",
        cost="one addition a block",
        reference="He et al. 2015, https://arxiv.org/abs/1512.03385; Bachlechner et al. 2020 (ReZero), "
        "https://arxiv.org/abs/2003.04887; De and Smith 2020 (SkipInit), https://arxiv.org/abs/2002.10444; Touvron et "
        "al. 2021 (LayerScale), https://arxiv.org/abs/2103.17239",
    )
)
def residual(setup: TrainingSetup, *, kind: Kind = "plain", scale: float | None = None) -> Plan:
    """Add residual connections ``y = x + scale * F(x)``.

    A block is a weight layer with all that stands between it and the next weight layer, its input and output of one
    shape. Blocks inside of an existing residual connection are left alone.

    Args:
        setup: The set-up to change.
        kind: ``"plain"`` keeps the scale fixed; ``"rezero"`` learns one number a block, ``"layerscale"`` one a
            channel. ``"skipinit"`` is ReZero's formula under its other name.
        scale: Factor on each branch at first, 0 or above. None is 0 for ReZero and SkipInit, 1e-4 for LayerScale, and
            ``1/sqrt(blocks)`` for plain ones, which keeps the sum of ``blocks`` branches of the input's size within a
            factor e: unscaled, mean squares double with every block.

    Raises:
        NotApplicableError: If there is no block.
    """
    if scale is not None and not 0 <= scale < math.inf:
        raise UsageError(f"residual: expected scale of 0 or above, got {scale}. None chooses it by kind and depth.")
    batch = first_batch(setup)
    blueprint, shapes = read_blueprint(setup, batch), input_shapes(setup, batch)
    links = _links(setup.model, blueprint, shapes)
    if not links:
        raise NotApplicableError(
            "residual: expected a hidden layer whose input and output have one shape and that no residual connection "
            "spans, found none. Make consecutive hidden layers equally wide."
        )
    if scale is None:
        scale = {"plain": len(links) ** -0.5, "layerscale": _LAYERSCALE}.get(kind, 0.0)
    names = {module_of(setup.model, layer): layer.module for layer in blueprint.layers}
    changes = []
    for chain in _chains(links):
        total = _Sum()
        for module in chain:
            first, last = module is chain[0], module is chain[-1]
            if kind != "plain" and not first:
                changes.append(Change(names[module], "child", "branch", _branch_scale(module, kind, scale)))
            fixed = scale if kind == "plain" else None
            changes.append(Change(names[module], "before", "shortcut", Shortcut(total, fixed, first, last)))
    return Plan(tuple(changes))


def _branch_scale(module: nn.Module, kind: Kind, start: float) -> BranchScale:
    """Return the scale of the branch that ends at a module, fit for its input."""
    weight = module.get_parameter("weight")
    if kind != "layerscale":
        shape: tuple[int, ...] = ()
    elif isinstance(module, _ConvNd):
        shape = (module.in_channels, *[1] * len(module.kernel_size))
    else:
        shape = weight.shape[1:]
    return BranchScale(start, shape, weight)


def _links(
    model: nn.Module, blueprint: Blueprint, shapes: dict[nn.Module, torch.Size]
) -> list[tuple[nn.Module, nn.Module]]:
    """Return the pairs of modules (start of a block, reader of its output), in execution order."""
    calls: dict[nn.Module, list[int]] = {}
    for position, layer in enumerate(blueprint.layers):
        if layer.role is Role.LINEAR and module_of(model, layer) in shapes:
            calls.setdefault(module_of(model, layer), []).append(position)
    once = {positions[0]: module for module, positions in calls.items() if len(positions) == 1}
    links = []
    for position, module in once.items():
        sources = sources_through(blueprint, position)
        start = next(iter(sources)) if len(sources) == 1 else None
        if start not in once or blueprint.layers[start].activation is None:
            continue
        readers = sum(start in sources_through(blueprint, other) for other in once)
        if shapes[once[start]] == shapes[module] and readers == 1 and not _spanned(blueprint, start):
            links.append((once[start], module))
    return links


def _spanned(blueprint: Blueprint, position: int) -> bool:
    """Whether some later layer reads a sum of what came before ``position`` and what came after it."""
    return any(
        min(layer.follows) < position <= max(layer.follows) for layer in blueprint.layers if len(layer.follows) > 1
    )


def _chains(links: list[tuple[nn.Module, nn.Module]]) -> list[list[nn.Module]]:
    chains: list[list[nn.Module]] = []
    for start, reader in links:
        chain = next((chain for chain in chains if chain[-1] is start), None)
        if chain is None:
            chains.append([start, reader])
        else:
            chain.append(reader)
    return chains
