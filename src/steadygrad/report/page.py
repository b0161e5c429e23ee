"""The pages of a diagnosis and of a treatment: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steadygrad.records import Diagnosis, Part, Prescription, Proof, Trial, Verdict
from steadygrad.report import letter
from steadygrad.report.charts import curves_chart, profile_chart
from steadygrad.report.document import (
    Card,
    bullets,
    document,
    figures,
    findings_list,
    head,
    listing,
    paragraph,
    safe,
    section,
    soft,
    table,
)
from steadygrad.report.tables import layer_sheet, mean_and_spread, proof_sheet, trial_sheet, yardsticks

__all__ = ["diagnosis_page", "notebook_html", "treatment_page"]

LAYERS_SHOWN = 100
NOTEBOOK_LAYERS = 20


def diagnosis_page(diagnosis: Diagnosis, cards: Mapping[str, Card]) -> str:
    """Return the page of a diagnosis: findings, profile of signal and gradient, layers, and what was not seen.

    Args:
        diagnosis: What was found.
        cards: What codes mean, by code: the rules of :mod:`steadygrad.diagnosis`.
    """
    profile = profile_chart({"diagnosis": diagnosis.observation}, diagnosis.guilty)
    body = (
        head(letter.headline(diagnosis), diagnosis.healthy, letter.where(diagnosis)),
        soft(letter.facts(diagnosis)),
        section("Findings", findings_list(diagnosis.findings, cards)),
        section("Signal and gradient", profile),
        section("Layers", _layers(diagnosis)),
        section("Not seen", bullets(diagnosis.blueprint.unseen)),
    )
    return document(letter.headline(diagnosis), body)


def treatment_page(
    diagnosis: Diagnosis,
    diagnosis_after: Diagnosis | None,
    trials: Sequence[Trial],
    proof: Proof | None,
    verdict: Verdict,
    prescription: Prescription | None,
    notes: Sequence[str],
    cards: Mapping[str, Card],
    parts: Sequence[Part] = (),
    doubts: Sequence[str] = (),
) -> str:
    """Return the page of a treatment: outcome first, then what was found, tried and recommended, and the evidence."""
    good = verdict in (Verdict.HEALTHY, Verdict.CURED)
    looks = {"before": diagnosis.observation}
    if diagnosis_after is not None:
        looks["after"] = diagnosis_after.observation
    found = paragraph(f"{letter.headline(diagnosis)}. {letter.where(diagnosis)}") + soft(letter.facts(diagnosis))
    rationale = prescription.rationale if prescription else ""
    body = (
        head(verdict.value.capitalize(), good, letter.VERDICTS[verdict].partition(": ")[2].capitalize()),
        _key_figures(proof) if proof else "",
        section("Found", found, findings_list(diagnosis.findings, cards)),
        section("Tried", paragraph(letter.tried(trials)), table(trial_sheet(trials)) if trials else ""),
        section(
            "Recommended",
            paragraph(rationale),
            bullets(letter.recommendation(prescription)),
            listing(letter.CODE, letter.code(prescription)),
        ),
        section("What mattered", bullets(letter.mattered(parts))),
        section("Notes", bullets(notes)),
        section("What remains unsure", bullets(doubts)),
        section("Before and after", *_evidence(proof)),
        section("Signal and gradient", profile_chart(looks, diagnosis.guilty)),
        section("Layers before", _layers(diagnosis)),
        section("Layers after", _layers(diagnosis_after)) if diagnosis_after else "",
        section("Not seen", bullets(diagnosis.blueprint.unseen)),
    )
    return document(verdict.value.capitalize(), body)


def notebook_html(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as an HTML fragment in the notebook's own style: summary, findings, a short layer table."""
    summary = f"<p><strong>{safe(letter.headline(diagnosis))}.</strong> {safe(letter.where(diagnosis))}</p>"
    findings, layers = findings_list(diagnosis.findings, {}), _layers(diagnosis, NOTEBOOK_LAYERS)
    return f'<div class="steadygrad">{summary}{findings}{layers}</div>'


def _key_figures(proof: Proof) -> str:
    runs = (("before", proof.before), ("after", proof.after))
    named = [(f"{proof.metric} {when}", mean_and_spread(them)) for when, them in runs]
    return figures([*named, *yardsticks(proof)])


def _evidence(proof: Proof | None) -> tuple[str, ...]:
    if proof is None:
        return (paragraph("No paired training was made, so nothing is proven."),)
    return table(proof_sheet(proof)), curves_chart({"before": proof.before, "after": proof.after})


def _layers(diagnosis: Diagnosis, limit: int = LAYERS_SHOWN) -> str:
    return table(layer_sheet(diagnosis.observation, diagnosis.blueprint, diagnosis.guilty, limit))
