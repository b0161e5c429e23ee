"""What became of each case when it was trained: saved once, read from then on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.doctor.yardstick import yardstick
from steadygrad.records import Prescription

from .cases import Case

FILE = Path(__file__).with_name("labels.json")
SEEDS = (101, 102, 103)
# Shares of the way from chance to the reference: every seed of a healthy set-up goes at least the one, a sick one goes
# on average less than the other; what lies between is grey and scores nothing.
HEALTHY, SICK = 0.9, 0.7


@dataclass(frozen=True)
class Label:
    """How a case fared.

    Attributes:
        state: ``"healthy"``, ``"sick"`` or ``"grey"``.
        shares: Share of the way from chance to the reference by seed; -1 where it diverged or did worse than that.
        seconds: One training took so long.
    """

    state: str
    shares: tuple[float, ...]
    seconds: float = 0.0


def scores_of(case: Case, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """Train a case as it is and return its scores."""
    scores = []
    for seed in seeds:
        answer = run_train_task(Patients(case.setup()), TrainTask(Prescription(), seed))
        assert answer.run is not None
        scores.append(answer.run.score)
    return scores


def chance_and_reference(case: Case) -> tuple[float, float]:
    """Return the saved scores of a constant answer and of the named healthy network."""
    chance, reference = _saved()["references"][key(case.data, case.family)]
    return chance, reference


def train_reference(case: Case) -> tuple[float, float]:
    """Train the named healthy network on three seeds; return chance and its mean score."""
    setup = case.reference()
    answers = []
    for seed in SEEDS:
        fresh = case.reference() if seed == SEEDS[0] else setup
        answers.append(run_train_task(Patients(fresh), TrainTask(Prescription(), seed)))
    score = fmean(answer.run.score for answer in answers if answer.run is not None)
    chance = yardstick(setup, setup.validation).chance
    assert chance is not None
    return chance, score


def key(data: str, family: str) -> str:
    """Return which reference a case is held against."""
    sort = "recurrent" if family in ("rnn", "lstm", "gru", "transformer") else family
    return f"{data}/{sort}"


def label_of(scores: list[float], chance: float, reference: float) -> Label:
    """Turn scores into a label."""
    shares = tuple(max(-1.0, (score - chance) / (reference - chance)) for score in scores)
    state = "healthy" if min(shares) >= HEALTHY else "sick" if fmean(shares) < SICK else "grey"
    return Label(state, tuple(round(share, 4) for share in shares))


def labels() -> dict[int, Label]:
    """Return all saved labels by index."""
    return {
        int(index): Label(state, tuple(shares), seconds)
        for index, (state, shares, seconds) in _saved()["labels"].items()
    }


@lru_cache(maxsize=1)
def _saved() -> dict[str, Any]:
    return json.loads(FILE.read_text()) if FILE.exists() else {"references": {}, "labels": {}}
