"""The page of a watched run: alarms, course, layers over the steps, and the layers as the run left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steadygrad.records import Finding, History, Severity
from steadygrad.report import letter
from steadygrad.report.charts import course_chart, profile_chart
from steadygrad.report.document import (
    Card,
    bullets,
    document,
    figures,
    findings_list,
    head,
    paragraph,
    section,
    soft,
    table,
)
from steadygrad.report.heatmap import heat_map
from steadygrad.report.tables import layer_name, layer_sheet, number, plain

__all__ = ["run_page"]

LAYERS_SHOWN = 200
HEAT = (
    ("grad_rms", "Gradient rms"),
    ("update_ratio", "Update to weight ratio"),
    ("output_signal", "Signal: rms of the outputs around their mean over the batch"),
)


def run_page(
    history: History, alarms: Sequence[tuple[int, Finding]], summary: Mapping[str, Any], cards: Mapping[str, Card]
) -> str:
    """Return the page of a watched run.

    Args:
        history: What was measured; one look at least.
        alarms: Steps and findings, in order.
        summary: What else is known: ``name``, ``ended``, ``unseen`` and ``clipping`` are shown where present.
        cards: What codes mean, by code: the rules of :mod:`steadygrad.diagnosis`.
    """
    findings, steps = [finding for _, finding in alarms], [step for step, _ in alarms]
    first, last = history.at(int(history.steps[0])), history.at(int(history.steps[-1]))
    words = [(step, finding.layer, _words(step, finding)) for step, finding in alarms]
    maps = "".join(heat_map(history, statistic, title, words) for statistic, title in HEAT)
    looks = {"first look": first, "last look": last} if len(history) > 1 else {"only look": last}
    calm = all(finding.severity < Severity.WARNING for finding in findings)
    body = (
        head(letter.alarm_headline(findings), calm, plain(str(summary.get("name", "")), 200)),
        _key_figures(history, summary),
        section("Alarms", findings_list(findings, cards, steps)),
        section("Course", course_chart(history, [(step, text) for step, _, text in words])),
        section("Layers over the steps", maps),
        section("Signal and gradient", profile_chart(looks) if _seen(history) else ""),
        section(f"Layers at step {last.step:,}", table(layer_sheet(last, None, limit=LAYERS_SHOWN))),
        section("Clipping", *_clipping(summary.get("clipping"))),
        section("Not seen", bullets(map(str, summary.get("unseen", ())))),
    )
    return document(letter.alarm_headline(findings), body)


def _seen(history: History) -> bool:
    """Return whether the activations of any layer were seen, or what came back to them."""
    return any(np.isfinite(history.column(name)).any() for name in ("output_signal", "output_grad_rms"))


def _words(step: int, finding: Finding) -> str:
    layer = "" if finding.layer is None else f" {layer_name(finding.layer, 60)}"
    return f"step {step:,}: {plain(finding.code, 20)}{layer}: {plain(finding.message, 200)}"


def _key_figures(history: History, summary: Mapping[str, Any]) -> str:
    losses = history.column("loss", of="step")
    seen = losses[~np.isnan(losses)]
    skipped = int(np.nansum(history.column("skipped", of="step")))
    named = [
        ("steps", f"{int(history.steps[-1]) + 1:,}"),
        ("looks", f"{len(history):,}"),
        ("layers", f"{len(history.layers):,}"),
        ("first loss", number(float(seen[0])) if len(seen) else ""),
        ("last loss", number(float(seen[-1])) if len(seen) else ""),
        ("skipped steps seen", f"{skipped:,}" if skipped else ""),
        ("ended", plain(str(summary.get("ended", "")), 60)),
    ]
    return figures([(name, value) for name, value in named if value])


def _clipping(report: Any) -> tuple[str, ...]:
    if not isinstance(report, Mapping) or not report:
        return ()
    numbers = {plain(str(name), 60): value for name, value in report.items() if isinstance(value, (int, float))}
    words = ", ".join(f"{name.replace('_', ' ')} {number(float(value))}" for name, value in numbers.items())
    return paragraph("Percentiles of the gradient norm before clipping, and a threshold to try:"), soft(words)
