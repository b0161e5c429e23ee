"""The page of a fitted Boltzmann machine or deep belief network: findings, course, filters and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from steadygrad.boltzmann.dbn import DBN
from steadygrad.boltzmann.labels import LabelDBN
from steadygrad.boltzmann.pictures import are_images, mosaic, png
from steadygrad.boltzmann.rbm import RBM
from steadygrad.boltzmann.supervised import Supervised
from steadygrad.diagnosis.contrastive import RULES
from steadygrad.records import Severity
from steadygrad.report import letter
from steadygrad.report.document import (
    document,
    figures,
    findings_list,
    head,
    paragraph,
    picture,
    section,
    soft,
    table,
)
from steadygrad.report.panel import AFTER, Line, figure, panel
from steadygrad.report.tables import Column, Row, Sheet, number

__all__ = ["filters_of", "machines_of", "network_page"]

TILES = 100
PIXELS = 250_000  # in a picture, so that two of them stay well under a megabyte
POINTS = 400
COURSES = {
    "free_energy_gap": "free-energy gap (nats)",
    "update_ratio": "update to weight ratio",
    "saturated": "saturated hidden states",
}
NO_GAP = "No rows were held out, so there is no free-energy gap: early_stopping=True, or --early-stopping, records it."


def network_page(network: Any, known: Mapping[str, str] | None = None, steps: int = 500) -> str:
    """Return the page of a fitted ``RBM``, ``DBN``, ``DBNClassifier`` or ``DBNRegressor``.

    The same network gives the same page: samples are drawn with seed 0.

    Args:
        network: What was fitted.
        known: Key figures by name, as the bound on the log-likelihood.
        steps: Gibbs steps of the samples.

    Example:
        >>> X = (np.random.default_rng(0).random((50, 9)) < 0.3).astype(np.float32)
        >>> page = network_page(RBM(4, n_epochs=2, random_state=0).fit(X), steps=5)
        >>> "data:image/png;base64" in page
        True
    """
    machines, findings = machines_of(network), _below(network).findings_
    calm = all(finding.severity < Severity.WARNING for finding in findings)
    title = letter.alarm_headline(findings)
    shape = " - ".join(str(size) for size in (network.n_features_in_, *(m.n_components for m in machines.values())))
    body = (
        head(title, calm, f"{type(network).__name__}, {shape} units"),
        figures((known or {}).items()),
        section("Findings", findings_list(findings, {rule.code: rule for rule in RULES})),
        section("Course", *_courses(machines, getattr(network, "history_", ()) if _tuned(network) else ())),
        section("Layers", table(_layers(machines))),
        section("Filters", *_filters(network)),
        section("Samples", *_samples(network, steps)),
    )
    return document(title, body)


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


def _below(network: Any) -> RBM | DBN | LabelDBN:
    """Return the probability model in a network."""
    return network if isinstance(network, (RBM, DBN)) else network.dbn_


def _tuned(network: Any) -> bool:
    return isinstance(network, Supervised) and not isinstance(network.dbn_, LabelDBN)


def _courses(machines: Mapping[str, RBM], tuning: Sequence[Mapping[str, float]]) -> Iterator[str]:
    longest = max((rbm.epochs_ for rbm in machines.values()), default=1)
    drawn = [
        _course(f"{name}: {title}", rbm.history_, key, longest)
        for key, title in COURSES.items()
        for name, rbm in machines.items()
        if any(key in record for record in rbm.history_)
    ]
    if drawn:
        yield figure(drawn, [], ["One panel a layer and figure, over the epochs of its pretraining."])
    if not any("free_energy_gap" in record for rbm in machines.values() for record in rbm.history_):
        yield soft(NO_GAP)
    if tuning:
        yield figure([_course("Fine-tuning: loss", tuning, "loss", len(tuning))], [], ["Over the epochs."])


def _course(title: str, records: Sequence[Mapping[str, float]], key: str, longest: int) -> str:
    span = max(longest - 1, 1)
    kept = records[:: -(-len(records) // POINTS)]
    points = tuple(
        ((record["epoch"] - 1) / span, record.get(key), f"epoch {record['epoch']}: {number(record.get(key))}")
        for record in kept
    )
    ends = ("epoch 1", f"epoch {span + 1}")
    return panel(title, [Line(title, AFTER, points)], ends, steps=(1, span + 1), linear=key != "update_ratio")


def _layers(machines: Mapping[str, RBM]) -> Sheet:
    titles = ("hidden units", "epochs", "update ratio", "dead units", "stuck units", "saturated", "free-energy gap")
    keys = ("update_ratio", "dead_units", "stuck_units", "saturated", "free_energy_gap")
    rows = []
    for name, rbm in machines.items():
        last = rbm.history_[-1] if rbm.history_ else {}
        rows.append(Row((name, f"{rbm.n_components:,}", f"{rbm.epochs_:,}", *(number(last.get(key)) for key in keys))))
    columns = (Column("layer"), *(Column(title, numeric=True) for title in titles))
    return Sheet(columns, tuple(rows), caption="As the last epoch left them; dead, stuck and saturated are shares.")


def _filters(network: Any) -> tuple[str, ...]:
    count = _tiles(network.n_features_in_)
    if not count:
        return (paragraph(_undrawn(network)),)
    weights = filters_of(network)[:count]
    words = f"The weights of {len(weights)} units of the first layer"
    return (picture(png(mosaic(weights, zero=0.0)), f"{words}, each tile at its own scale; zero is middle gray."),)


def _samples(network: Any, steps: int) -> tuple[str, ...]:
    count = _tiles(network.n_features_in_)
    if not count:
        return (paragraph(_undrawn(network)),)
    model: Any = network if isinstance(_below(network), LabelDBN) else _below(network)
    rows = model.sample(count, steps=steps, random_state=0)
    inside = rows.min() >= 0 and rows.max() <= 1
    before = ", before fine-tuning" if _tuned(network) else ""
    words = f"{count} draws of the model{before}, each after {steps:,} Gibbs steps"
    scale = "" if inside else ", each tile at its own scale; zero is middle gray"
    return (picture(png(mosaic(rows, zero=None if inside else 0.0)), f"{words}{scale}."),)


def _tiles(features: int) -> int:
    """Return how many tiles a picture may hold; 0 if rows are no images."""
    return min(TILES, PIXELS // features) if are_images(features) else 0


def _undrawn(network: Any) -> str:
    return f"Rows of {network.n_features_in_:,} features are no small square images, so nothing is drawn."
