"""Static facts of a training set-up: what the network is made of, before any judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Blueprint", "Layer", "Range", "Role", "TargetKind"]


class Role(StrEnum):
    """What a layer does to the signal."""

    LINEAR = "linear"  # an affine map with a weight: Linear, Conv, Bilinear
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    ATTENTION = "attention"
    ACTIVATION = "activation"
    NORMALIZATION = "normalization"
    OTHER = "other"  # dropout, pooling, reshaping, modules unknown to us


class TargetKind(StrEnum):
    """What the targets are."""

    CLASS_INDEX = "class index"
    BINARY = "binary"  # floating, every entry 0 or 1
    REAL = "real"
    NONE = "none"  # the batch has no target that we know of


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of one layer in execution order.

    Attributes:
        name: Qualified module name, with ``#2`` from the second call on; a functional activation is named after the
            module that called it, as in ``block.0:relu``.
        module: Qualified name of the module, ``""`` for the root.
        kind: Class name of the module or name of the function, lower case for functions.
        role: What it does.
        follows: Positions in ``Blueprint.layers`` whose outputs reached this call.
        fan_in: ``in * prod(kernel)`` of the weight; None without one.
        fan_out: ``out * prod(kernel)`` of the weight.
        activation: Kind of the activation that follows, normalization and dropout skipped; None if none does.
        normalized: Whether a normalization layer stands between this layer and the next weighted one.
        trainable: Whether any own parameter requires a gradient.
        parameters: Number of own parameters.
        dropout: Share of what comes in that it drops while training; 0 for all but dropout.
    """

    name: str
    module: str
    kind: str
    role: Role
    follows: tuple[int, ...] = ()
    fan_in: int | None = None
    fan_out: int | None = None
    activation: str | None = None
    normalized: bool = False
    trainable: bool = False
    parameters: int = 0
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Range:
    """The range of an input, target or output tensor.

    ``feature_std_ratio`` is the largest over the smallest standard deviation of a feature, constant features left
    out; None unless the tensor has shape ``(batch, features)`` with two features or more.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    mean: float
    std: float
    nonfinite: int = 0
    feature_std_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The static facts of a set-up, read in one pass of one batch.

    Attributes:
        layers: Layer calls in execution order.
        loss: Kind of the loss as torch knows it (``"cross_entropy"``, ``"mse_loss"`` ...); None if not seen.
        loss_shapes: Shapes of the tensors that went into the loss, in order.
        loss_reduction: How the loss makes one number of many, as torch spells it; None if not seen.
        head: Kind of the activation that made the model's output; None if the output comes from a weight layer.
        head_layer: Position of the layer that made the output; None if not seen.
        output: Range of the model's output; None if it is no tensor.
        inputs: Range of every floating input tensor.
        entries: Range of what enters each first weight layer; differs from ``inputs`` where the model scales them.
        target: Range of the target; None without one.
        target_kind: What the targets are.
        optimizer: Class name of the optimizer; None if the set-up has none.
        optimizer_settings: Its numeric settings (``lr``, ``momentum``, ...).
        steps: Planned length of the training in optimizer steps.
        batch: Number of samples in the batch.
        parameters: Number of parameters of the model, frozen ones included.
        scheduled: Whether the learning rate follows a schedule.
        learned: Whether the weights carry something learned, so that they are not drawn afresh.
        unoptimized: Names of layers that require a gradient and that the optimizer does not hold.
        foreign: Number of parameters that the optimizer holds and that are not the model's.
        labels_outside: Number of labels that the output has no unit for, where the loss fails for them.
        evaluating: Names of modules that were found in evaluation mode and act differently in it.
        functions: Names of functions of layer outputs that are no layer themselves (``"reshape"``, ``"sin"``).
        unseen: What could not be looked into, in words.
    """

    layers: tuple[Layer, ...]
    loss: str | None = None
    loss_shapes: tuple[tuple[int, ...], ...] = ()
    loss_reduction: str | None = None
    head: str | None = None
    head_layer: int | None = None
    output: Range | None = None
    inputs: tuple[Range, ...] = ()
    entries: tuple[Range, ...] = ()
    target: Range | None = None
    target_kind: TargetKind = TargetKind.NONE
    optimizer: str | None = None
    optimizer_settings: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    batch: int = 0
    parameters: int = 0
    scheduled: bool = False
    learned: bool = False
    unoptimized: tuple[str, ...] = ()
    foreign: int = 0
    labels_outside: int = 0
    evaluating: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
