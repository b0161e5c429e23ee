"""The page of a fitted Boltzmann machine or deep belief network: findings, course, filters and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steadygrad.boltzmann.pictures import png
from steadygrad.boltzmann.portrait import findings_of, machines_of, pictures_of, tuning_of
from steadygrad.boltzmann.rbm import RBM
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

__all__ = ["network_page"]

POINTS = 400
COURSES = {
    "free_energy_gap": "free-energy gap (nats)",
    "pseudo_log_likelihood": "pseudo-log-likelihood of held-out rows (nats)",
    "update_ratio": "update to weight ratio",
    "saturated": "saturated hidden states",
}
NO_IMAGES = "The rows are no small square images, so filters and samples are not drawn."
NO_GAP = "No rows were held out, so there is no free-energy gap: early_stopping=True, or --early-stopping, records it."


def network_page(network: Any, known: Mapping[str, str] | None = None, steps: int = 500) -> str:
    """Return the page of a fitted ``RBM``, ``DBN``, ``DBNClassifier`` or ``DBNRegressor``.

    The same network gives the same page: samples are drawn with seed 0.

    Args:
        network: What was fitted.
        known: Key figures by name, as the bound on the log-likelihood.
        steps: Gibbs steps of the samples.

    Example:
        >>> import numpy as np
        >>> X = (np.random.default_rng(0).random((50, 9)) < 0.3).astype(np.float32)
        >>> page = network_page(RBM(4, n_epochs=2, random_state=0).fit(X), steps=5)
        >>> "data:image/png;base64" in page
        True
    """
    machines, findings, drawn = machines_of(network), findings_of(network), pictures_of(network, steps)
    calm = all(finding.severity < Severity.WARNING for finding in findings)
    title = letter.alarm_headline(findings)
    shape = " - ".join(str(size) for size in (network.n_features_in_, *(m.n_components for m in machines.values())))
    body = (
        head(title, calm, f"{type(network).__name__}, {shape} units"),
        figures((known or {}).items()),
        section("Findings", findings_list(findings, {rule.code: rule for rule in RULES})),
        section("Course", *_courses(machines, tuning_of(network))),
        section("Layers", table(_layers(machines))),
        *(section(title, picture(png(pixels), words)) for title, (pixels, words) in drawn.items()),
        "" if drawn else section("Pictures", paragraph(NO_IMAGES)),
    )
    return document(title, body)


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
