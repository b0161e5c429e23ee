"""What is shown of a fitted machine or network, whoever shows it: its machines, findings, filters and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from steadygrad.boltzmann.dbn import DBN
from steadygrad.boltzmann.labels import LabelDBN
from steadygrad.boltzmann.pictures import are_images, mosaic
from steadygrad.boltzmann.rbm import RBM
from steadygrad.records import Finding

__all__ = ["filters_of", "findings_of", "machines_of", "pictures_of", "tuning_of"]

TILES = 100
PIXELS = 250_000  # in a picture, so that two of them stay well under a megabyte


def machines_of(network: Any) -> dict[str, RBM]:
    """Return the fitted machines of a network by the names that findings give them, from the data upwards."""
    check_is_fitted(network)
    below = _below(network)
    if isinstance(below, RBM):
        return {"rbm": below}
    if isinstance(below, LabelDBN):
        lower = below.lower.rbms_ if below.lower else []
        return {f"rbms_[{i}]": rbm for i, rbm in enumerate(lower)} | {"top": below.top}
    return {f"rbms_[{i}]": rbm for i, rbm in enumerate(below.rbms_)}


def filters_of(network: Any) -> np.ndarray:
    """Return the weights of the first layer's hidden units, shape ``(units, features)``."""
    below = _below(network)
    if isinstance(below, LabelDBN):
        weight = (below.stack.up or [below.stack.top])[0].weight.t()[:, : network.n_features_in_]
    elif isinstance(network, RBM):
        weight = network.machine_.weight.t()
    else:
        weight = next(network.to_sequential().parameters()).detach()
    return weight.cpu().numpy()


def findings_of(network: Any) -> list[Finding]:
    """Return what the records of all machines show."""
    return _below(network).findings_


def tuning_of(network: Any) -> Sequence[Mapping[str, float]]:
    """Return the records of fine-tuning with a loss; none where there was no such fine-tuning."""
    if isinstance(_below(network), LabelDBN) or _below(network) is network:
        return []
    return network.history_


def pictures_of(network: Any, steps: int) -> dict[str, tuple[np.ndarray, str]]:
    """Return bytes of shape ``(height, width)`` and what they show, by title; nothing if rows are no small images.

    The same network gives the same pictures: samples are drawn with seed 0.

    Args:
        network: What was fitted.
        steps: Gibbs steps of the samples.
    """
    features = network.n_features_in_
    count = min(TILES, PIXELS // features) if are_images(features) else 0
    if not count:
        return {}
    own_scale = "each tile at its own scale; zero is middle gray"
    weights = filters_of(network)[:count]
    below = _below(network)
    model: Any = network if isinstance(below, LabelDBN) else below
    rows = model.sample(count, steps=steps, random_state=0)
    inside = rows.min() >= 0 and rows.max() <= 1
    before = ", before fine-tuning" if tuning_of(network) else ""
    drawn = f"{count} draws of the model{before}, each after {steps:,} Gibbs steps"
    return {
        "Filters": (
            mosaic(weights, zero=0.0),
            f"{len(weights)} units of the first layer by their weights, {own_scale}.",
        ),
        "Samples": (mosaic(rows, zero=None if inside else 0.0), f"{drawn}{'' if inside else f', {own_scale}'}."),
    }


def _below(network: Any) -> RBM | DBN | LabelDBN:
    """Return the probability model in a network."""
    return network if isinstance(network, (RBM, DBN)) else network.dbn_
