"""What a treatment leaves unsure, read from what it recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev

from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.records import Outcome, Proof, Prospect, Severity

__all__ = ["doubts"]

# Student's t of the 95 % interval of a mean, by the number of seeds.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}


def doubts(treatment: Treatment, held: Yardstick) -> tuple[str, ...]:
    """Return one sentence a doubt: the forecast, the choice, the seeds, and what is still found."""
    found = [*_of_the_forecast(treatment), *_of_the_choice(treatment, held)]
    if treatment.proof is not None:
        found += _of_the_seeds(treatment.proof)
    if treatment.diagnosis_after is not None:
        left = [f.code for f in treatment.diagnosis_after.findings if f.severity >= Severity.WARNING]
        if left:
            found.append(f"Still found in the cured set-up: {', '.join(dict.fromkeys(left))}.")
    found += [f"Not seen: {what}." for what in treatment.diagnosis.blueprint.unseen]
    return tuple(found)


def _of_the_forecast(treatment: Treatment) -> Iterator[str]:
    forecast = treatment.diagnosis.forecast
    if forecast is not None and forecast.prospect is Prospect.UNSURE:
        yield f"The forecast was unsure: {forecast.probability:.0%} likely to fail as it came."


def _of_the_choice(treatment: Treatment, held: Yardstick) -> Iterator[str]:
    trials = [trial for trial in treatment.trials if trial.prescription.steps]
    chosen = next((trial for trial in trials if trial.outcome is Outcome.CHOSEN), None)
    if chosen is None:
        return
    length = chosen.runs[-1].steps
    rivals = [t for t in trials if t is not chosen and t.runs and t.runs[-1].steps == length]
    near = [trial for trial in rivals if abs(trial.score - chosen.score) <= held.luck]
    if near:
        yield (
            f"{len(near)} other prescription{'s' * (len(near) > 1)} came within {held.luck:.3f} {held.metric} of the "
            "chosen one, which may be luck on the rows that chose: the smaller change was preferred."
        )
    if behind := sum(trial.outcome is Outcome.STOPPED for trial in trials):
        yield (
            f"{behind} prescription{'s' * (behind > 1)} fell behind in short trainings; what pays off late may be "
            "among them."
        )
    if len(chosen.prescription.steps) > 1 and not treatment.parts:
        yield "Which part of the combination matters was not measured: the budget or a short training did not tell."


def _of_the_seeds(proof: Proof) -> Iterator[str]:
    scores = [run.score for run in proof.after]
    if lost := sum(not math.isfinite(score) for score in scores):
        yield f"{lost} of {len(scores)} treated trainings diverged."
    elif len(scores) in STUDENT:
        half = STUDENT[len(scores)] * stdev(scores) / math.sqrt(len(scores))
        yield (
            f"{len(scores)} seeds put the mean {proof.metric} of the treated set-up at {fmean(scores):.3f} ± "
            f"{half:.3f} (95 %, Student's t)."
        )
