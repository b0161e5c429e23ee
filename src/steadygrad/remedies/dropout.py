"""Put dropout behind the hidden activations of an existing network."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Blueprint, Role, Symptom
from steadygrad.remedies.plan import Change, Plan, planned
from steadygrad.remedies.remedy import Card, Site
from steadygrad.remedies.surgery import readers, weightless_before
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.signals.layers import canonical
from steadygrad.training.setup import TrainingSetup

__all__ = ["ApplyDropout", "dropout", "less_dropout"]


class ApplyDropout:
    """A forward pre-hook that passes a layer's input through its child module ``dropout``."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments, the first one dropped out."""
        return (module.get_submodule("dropout")(args[0]), *args[1:])

    def __repr__(self) -> str:
        return "dropout(input)"


@planned(
    Card(
        name="dropout",
        treats=(),
        site=Site.MODEL,
        summary="Set a share of the hidden activations to zero while training, against overfitting.",
        formula="x * mask / (1 - p), each entry of mask 1 with probability 1 - p; x itself in evaluation mode",
        not_for="Vanishing and exploding gradients: their profile over the layers stays as it was.",
        hurts="Underfitting gets worse; every step is noisier by 1 / (1 - p).",
        cost="one random number an activation",
        reference="Srivastava et al. 2014, Dropout, sec. 4; Klambauer et al. 2017 (alpha dropout for SELU), "
        "https://arxiv.org/abs/1706.02515",
    )
)
def dropout(setup: TrainingSetup, *, p: float = 0.1) -> Plan:
    """Put dropout in front of every Linear or Conv layer that reads a hidden activation and has none.

    Behind SELU it is alpha dropout. Evaluation mode answers as before, and no state-dict key changes.

    Args:
        setup: The set-up to change.
        p: Share of activations set to zero, in (0, 1). Srivastava et al. take 0.5 for wide fully connected layers.

    Raises:
        NotApplicableError: If there is no such layer.
    """
    if not 0 < p < 1:
        raise UsageError(f"dropout: expected p above 0 and below 1, got {p}. Start with 0.1.")
    blueprint = read_blueprint(setup)
    changes: list[Change] = []
    for calls in readers(setup.model, blueprint).values():
        kinds = [_kinds_before(blueprint, call) for call in calls]
        if not all(kinds) or any("dropout" in kind for each in kinds for kind in each):
            continue
        new = nn.AlphaDropout(p) if all("selu" in each for each in kinds) else nn.Dropout(p)
        name = blueprint.layers[calls[0]].module
        changes += [Change(name, "child", "dropout", new), Change(name, "before", "dropout", ApplyDropout())]
    if not changes:
        raise NotApplicableError(
            "dropout: expected Linear or Conv layers that read a hidden activation without dropout, found none. "
            "Either all have it or the weights are used by functions."
        )
    return Plan(tuple(changes))


def _kinds_before(blueprint: Blueprint, position: int) -> set[str]:
    """Return the kinds of what the signal passes just before a layer; nothing unless an activation is among them."""
    between = [blueprint.layers[each] for each in weightless_before(blueprint, position)]
    if not any(layer.role is Role.ACTIVATION for layer in between):
        return set()
    return {canonical(layer.kind) for layer in between}


@planned(
    Card(
        name="less_dropout",
        treats=(Symptom.WIRING,),
        site=Site.MODEL,
        summary="Lower the rate of dropout that leaves hardly anything.",
        formula="p <- min(p, bound)",
        not_for="Overfitting, which grows.",
        hurts="Overfitting grows.",
        reference="Srivastava et al. 2014, Dropout, sec. 7.3: rates of 0.4 to 0.8 are too high for hidden units of "
        "small networks",
    )
)
def less_dropout(setup: TrainingSetup, *, p: float = 0.1) -> Plan:
    """Lower the rate of every dropout module above ``p`` to ``p``.

    Args:
        setup: The set-up to change.
        p: Highest rate, in [0, 1).

    Raises:
        NotApplicableError: If none is above.
    """
    if not 0 <= p < 1:
        raise UsageError(f"less_dropout: expected p at least 0 and below 1, got {p}. Start with 0.1.")
    changes = [
        Change(name, "attribute", "p", p, repr(module.p))
        for name, module in setup.model.named_modules()
        if isinstance(module, _DropoutNd) and module.p > p
    ]
    if not changes:
        raise NotApplicableError(f"less_dropout: expected dropout of a rate above {p}, found none. Leave it as it is.")
    return Plan(tuple(changes))
