"""Units from names and data: the layers of a machine before it has learned anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.joint import Joint
from steadygrad.boltzmann.sources import Moments
from steadygrad.boltzmann.units import Bernoulli, Gaussian, NoisyReLU, Softmax, Units
from steadygrad.errors import UsageError

__all__ = ["Spec", "check_range", "new_machine", "resolve", "start_visible", "units"]

Spec = Sequence[tuple[str, int]]
"""Kinds and sizes of parts side by side; the size of softmax units is the number of classes of one group."""

VISIBLE = ("bernoulli", "gaussian", "softmax")
HIDDEN = ("bernoulli", "relu")
_WEIGHT_SCALE = 0.01  # Hinton 2010, sec. 8.1
_FIELD_SCALE = 0.3  # least standard deviation of a hidden field from unit inputs: few inputs need larger weights
_NOISE_SHARE = 0.25  # of a real feature's variance; with all of it zero weights would fit as they are, a saddle point
_ONE_HOT_SLACK = 1e-4


def units(spec: Spec) -> Units:
    """Return layers of those kinds with all parameters 0."""
    parts = [_part(kind, torch.zeros(size), torch.zeros(size)) for kind, size in spec]
    return parts[0] if len(parts) == 1 else Joint(*parts)


def _part(kind: str, bias: Tensor, log_variance: Tensor) -> Units:
    if kind == "gaussian":
        return Gaussian(bias, log_variance)
    if kind == "softmax":
        return Softmax(bias, len(bias))
    return NoisyReLU(bias) if kind == "relu" else Bernoulli(bias)


def resolve(visible: str | Spec, moments: Moments) -> list[tuple[str, int]]:
    """Turn the setting ``visible`` into kinds and sizes that cover the data, and check the data's range.

    ``"auto"`` gives Bernoulli units for entries in [0, 1] and Gaussian units for others.

    Raises:
        UsageError: If a kind is unknown, the sizes do not add up, or the data are out of range.
    """
    features = len(moments.mean)
    if visible == "auto":
        inside = bool((moments.low >= 0).all() and (moments.high <= 1).all())
        visible = "bernoulli" if inside else "gaussian"
    spec = [(visible, features)] if isinstance(visible, str) else [(kind, size) for kind, size in visible]
    for kind, _ in spec:
        if kind not in VISIBLE:
            raise UsageError(
                f"visible: expected 'auto' or one of {', '.join(VISIBLE)}, got {kind!r}. Choose one of them."
            )
    if sum(size for _, size in spec) != features:
        raise UsageError(
            f"visible: expected sizes that add up to the {features} features, got {spec}. Give every feature a kind."
        )
    check_range(spec, moments)
    return spec


def check_range(spec: Spec, moments: Moments) -> None:
    """Check that the data fit their units.

    Raises:
        UsageError: If entries for Bernoulli or softmax units lie outside [0, 1], or softmax groups do not sum to 1.
    """
    start = 0
    for kind, size in spec:
        piece = slice(start, start + size)
        start += size
        low, high = float(moments.low[piece].min()), float(moments.high[piece].max())
        if kind != "gaussian" and not (low >= 0 and high <= 1):
            raise UsageError(
                f"data: expected entries in [0, 1] for {kind} units, got {low:.4g} to {high:.4g}. "
                "Scale them (sklearn's MinMaxScaler(clip=True)), or use visible='gaussian'."
            )
        total = float(moments.mean[piece].sum())
        if kind == "softmax" and abs(total - 1) > _ONE_HOT_SLACK:
            raise UsageError(
                f"data: expected one 1 among the {size} softmax units of each row, got a mean sum of {total:.4g}. "
                "Encode the classes one-hot."
            )


def start_visible(spec: Spec, moments: Moments) -> Units:
    """Return visible units that fit the data without any hidden ones: base rates, means and variances."""
    parts, start = [], 0
    for kind, size in spec:
        mean, variance = (value[start : start + size] for value in (moments.mean, moments.variance))
        start += size
        # One row of each state is added, so that no probability is 0 or 1 (Hinton 2010, sec. 8.1, without logs of 0).
        rates = (mean * moments.rows + 1) / (moments.rows + 2)
        bias = {"bernoulli": rates.logit(), "softmax": rates.log(), "gaussian": mean}[kind]
        spread = torch.where(variance > 0, variance, torch.ones_like(variance))
        parts.append(_part(kind, bias.float(), (_NOISE_SHARE * spread).log().float()))
    return parts[0] if len(parts) == 1 else Joint(*parts)


def new_machine(
    visible: Units, hidden: str, size: int, generator: torch.Generator, scale: float | None = None
) -> Machine:
    """Return a machine with random weights, small ones unless ``scale`` says otherwise, and hidden biases of 0.

    ``visible`` is copied.
    """
    if hidden not in HIDDEN:
        raise UsageError(f"hidden: expected one of {', '.join(HIDDEN)}, got {hidden!r}. Choose one of them.")
    if scale is None:
        scale = max(_WEIGHT_SCALE, _FIELD_SCALE / math.sqrt(visible.size))
    weight = torch.randn(visible.size, size, generator=generator, device=generator.device) * scale
    return Machine(weight, visible.to(device=generator.device), units([(hidden, size)]).to(device=generator.device))
