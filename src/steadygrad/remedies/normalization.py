"""Normalize what hidden weight layers give, before their activation."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError
from steadygrad.records import Role, Symptom
from steadygrad.remedies.plan import Change, Plan, planned
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import head_weights, module_of
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["ApplyNorm", "normalization"]

Kind = Literal["layer", "batch", "rms", "group"]
_BATCH_NORMS: dict[int, type[_BatchNorm]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_GROUPS = 32  # Wu and He 2018, sec. 4


class ApplyNorm:
    """A forward hook that passes a layer's output through its child module ``norm``."""

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Return the normalized output."""
        norm = module.get_submodule("norm")
        if isinstance(norm, (nn.BatchNorm1d, nn.GroupNorm)) and isinstance(module, nn.Linear):
            return norm(output.reshape(-1, output.shape[-1])).view_as(output)  # they want the features in dimension 1
        return norm(output)

    def __repr__(self) -> str:
        return "norm(output)"


@planned(
    Card(
        name="normalization",
        treats=(Symptom.VANISHING, Symptom.EXPLODING, Symptom.SATURATION, Symptom.DEAD_UNITS),
        site=Site.MODEL,
        summary="Normalize the output of every hidden weight layer before its activation.",
        formula="scale * (x - mean) / sqrt(variance + 1e-5) + shift; rms: scale * x / sqrt(mean of x^2 + eps)",
        not_for="Gradients of a deep plain network under BatchNorm: they explode, by 1.21 a ReLU layer.",
        hurts="BatchNorm on tiny batches, and in deep plain networks, where it makes gradients explode (Yang 2019, "
        "https://arxiv.org/abs/1902.08129).",
        cost="two numbers a unit, some 10 to 30 % of the time of small layers",
        reference="Ba et al. 2016, https://arxiv.org/abs/1607.06450; Ioffe and Szegedy 2015; Wu and He 2018; Zhang and "
        "Sennrich 2019 (RMS)",
    )
)
def normalization(setup: TrainingSetup, *, kind: Kind = "layer") -> Plan:
    """Add a normalization to every hidden Linear or Conv layer that has none.

    Each such layer gets a child module ``norm`` and a hook that applies it; all old state-dict keys stay. Layers that
    make the output, have no activation behind them or are normalized already are left alone.

    Args:
        setup: The set-up to change.
        kind: ``"layer"`` over the features (all channels and places of a convolution), ``"batch"`` over the batch,
            ``"rms"`` over the features without a mean (Linear only), ``"group"`` over groups of features.

    Raises:
        NotApplicableError: If there is no such layer, or ``kind`` does not fit one.
    """
    blueprint = read_blueprint(setup)
    heads = head_weights(blueprint)
    layers: dict[nn.Module, str] = {}
    for position, layer in enumerate(blueprint.layers):
        module = module_of(setup.model, layer)
        fits = layer.role is Role.LINEAR and layer.activation is not None and not layer.normalized
        if fits and position not in heads and isinstance(module, (nn.Linear, _ConvNd)):
            layers[module] = layer.module
    if not layers:
        raise NotApplicableError(
            "normalization: expected hidden Linear or Conv layers without a normalization behind them, found none. "
            "Either all have one or the weights are used by functions."
        )
    changes = []
    for module, name in layers.items():
        weight = module.get_parameter("weight")
        norm = _build(module, kind).to(device=weight.device, dtype=weight.dtype)
        changes += [Change(name, "child", "norm", norm), Change(name, "after", "norm", ApplyNorm())]
    return Plan(tuple(changes))


def _build(module: nn.Module, kind: Kind) -> nn.Module:
    if isinstance(module, _ConvNd):
        channels = module.out_channels
        if kind == "rms":
            raise NotApplicableError(
                "normalization: expected Linear layers for kind='rms', which works over features, found a convolution. "
                "Use kind='layer' or kind='group'."
            )
        if kind == "layer":
            return nn.GroupNorm(1, channels)
        if kind == "batch":
            return _BATCH_NORMS[len(module.kernel_size)](channels)
        return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)
    features = module.get_parameter("weight").shape[0]
    if kind == "layer":
        return nn.LayerNorm(features)
    if kind == "batch":
        return nn.BatchNorm1d(features)
    return nn.RMSNorm(features) if kind == "rms" else nn.GroupNorm(math.gcd(_GROUPS, features), features)
