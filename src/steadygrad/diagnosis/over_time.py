"""SG503 to SG518: what only a training in progress shows, read from its history."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from steadygrad.diagnosis.misuse import CHECKS
from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Finding, History, Severity, Symptom

__all__ = ["RULES", "TimeRule", "judge_history"]

# A look is compared with those before it: at least this many, at most that many. Medians are taken last, as rules are
# asked within a training and most find at the first glance that there is nothing.
FEWEST, WINDOW = 10, 50
# llm.c marks spikes at z > 6; gradient norms are near log-normal, so that z is taken on logarithms and a factor
# is asked for as well.
SPIKE_Z, SPIKE_FACTOR = 6.0, 5.0
DRIFT_FACTOR = 10.0
# Of random walks of the loss half of the turns are reversals; of an oscillation nearly all.
TURNS, SWING = 0.8, 0.1
STALLED_GAIN = 0.01
DYING_SHARE, DYING_GROWTH = 0.5, 0.25
# TheDeepChecker (Ben Braiek and Khomh, TOSEM 2022): healthy updates lie within [1e-4, 1e-1] of the weights.
LOST_RATIO, LOST_FACTOR = 1e-6, 1e-2


@dataclass(frozen=True)
class TimeRule(Rule):
    """A rule that looks back over a history; one observation alone tells it nothing."""

    watch: Callable[[History], Iterator[Found]] = lambda history: iter(())

    def findings_over(self, history: History) -> list[Finding]:
        """Return what the rule finds at the last look."""
        return [
            Finding(
                self.code,
                self.symptom,
                found.severity,
                found.message,
                self.advice,
                found.layer,
                found.evidence,
                found.confidence,
            )
            for found in self.watch(history)
        ]


def judge_history(history: History, select: Iterable[str] = ()) -> list[Finding]:
    """Apply the rules over time (all, or those with codes ``select``) at the last look; findings stand worst first."""
    chosen = [rule for rule in RULES if not select or rule.code in select] if len(history) else []
    findings = [finding for rule in chosen for finding in rule.findings_over(history)]
    return sorted(findings, key=lambda finding: (-finding.severity, finding.code))


def spike(history: History) -> Iterator[Found]:
    """Compare the last gradient norm with those before it."""
    last, before = _last_and_before(history, "grad_norm")
    if len(before) < FEWEST or not last > 0:
        return
    if 2 * np.count_nonzero(SPIKE_FACTOR * before <= last) < len(before):  # not that far above the median: asked often
        return
    logs = np.log(before)
    center = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - center))), 0.05)
    z, factor = (math.log(last) - center) / spread, last / math.exp(center)
    if z < SPIKE_Z or factor < SPIKE_FACTOR:
        return
    layer = _grown_most(history, "grad_norm")
    yield Found(
        Severity.WARNING,
        f"the gradient norm jumps to {last:.2e}, {factor:.0f} times its median over {len(before)} looks"
        + (f", most at {layer}" if layer else ""),
        layer,
        {"grad_norm": last, "factor": factor, "z": z},
    )


def drift(history: History) -> Iterator[Found]:
    """Compare the gradient norm of the last looks with that of the first of the window."""
    norms = _recent(history.column("grad_norm", of="step"))
    if len(norms) < 3 * FEWEST:
        return
    fifths = np.array_split(norms, 5)
    if fifths[-1].max() < DRIFT_FACTOR * fifths[0].min():
        return
    medians = [float(np.median(part)) for part in fifths]
    rising = all(after > before for before, after in itertools.pairwise(medians))
    if medians[0] > 0 and rising and medians[-1] / medians[0] >= DRIFT_FACTOR:
        factor = medians[-1] / medians[0]
        layer = _grown_most(history, "grad_norm")
        yield Found(
            Severity.WARNING,
            f"the gradient norm has grown without a turn by a factor of {factor:.0f} over {len(norms)} looks"
            + (f", most at {layer}" if layer else ""),
            layer,
            {"factor": factor, "grad_norm": medians[-1]},
        )


def oscillation(history: History) -> Iterator[Found]:
    """Count how often the loss turns back, and how far it swings."""
    losses = _recent(history.column("loss", of="step"))[-2 * FEWEST :]
    if len(losses) < 2 * FEWEST:
        return
    moves = np.diff(losses)
    turns = float(np.mean(moves[1:] * moves[:-1] < 0))
    if turns < TURNS:
        return
    swing = float(np.median(np.abs(moves))) / max(abs(float(np.median(losses))), 1e-12)
    falls = float(np.median(losses[-FEWEST:])) < 0.95 * float(np.median(losses[:FEWEST]))
    if swing >= SWING and not falls:
        yield Found(
            Severity.WARNING,
            f"the loss swings by {swing:.0%} from look to look, turns back in {turns:.0%} of them and does not fall",
            None,
            {"swing": swing, "turns": turns},
        )


def stalled(history: History) -> Iterator[Found]:
    """Compare the loss of the window's two halves with its noise and its beginning."""
    losses = history.column("loss", of="step")
    losses = losses[np.isfinite(losses)]
    if len(losses) < WINDOW:
        return
    first, last = float(np.median(losses[: FEWEST // 2])), float(np.median(losses[-WINDOW // 2 :]))
    if not last >= first * (1 - STALLED_GAIN) or not first > 0:
        return
    noise = float(np.median(np.abs(losses - np.median(losses))))
    if noise < 0.1 * first:
        yield Found(
            Severity.WARNING,
            f"the loss stands at {last:.4g} after {len(losses)} looks; it began at {first:.4g}",
            None,
            {"loss": last, "first": first},
        )


def dying(history: History) -> Iterator[Found]:
    """Find layers more and more of whose units are zero for every sample."""
    dead = history.column("dead_fraction")[-WINDOW:]
    if len(dead) < FEWEST or not (dead[-FEWEST // 2 :] >= DYING_SHARE).any():
        return
    start, end = _medians(dead[: FEWEST // 2]), _medians(dead[-FEWEST // 2 :])
    grown = np.nan_to_num(end - start, nan=-1.0)
    place = int(np.argmax(grown))
    if grown[place] >= DYING_GROWTH and end[place] >= DYING_SHARE:
        yield Found(
            Severity.ERROR if end[place] >= 0.9 else Severity.WARNING,
            f"units of {history.layers[place]} die: {start[place]:.0%} gave 0 for a whole batch {len(dead)} looks ago, "
            f"{end[place]:.0%} do now",
            history.layers[place],
            {"dead_fraction": float(end[place]), "before": float(start[place])},
        )


def collapse(history: History) -> Iterator[Found]:
    """Find layers whose updates have become next to nothing beside their weights."""
    ratios, rates = history.column("update_ratio")[-WINDOW:], history.column("lr", of="step")[-WINDOW:]
    if len(ratios) < FEWEST or not (ratios[-FEWEST // 2 :] < LOST_RATIO).any():
        return
    if not rates[-1] >= 0.1 * np.nanmax(rates):  # a schedule that lets the rate go to 0 means it
        return
    start, end = _medians(ratios[: FEWEST // 2]), _medians(ratios[-FEWEST // 2 :])
    with np.errstate(invalid="ignore"):
        lost = np.flatnonzero((end < LOST_RATIO) & (end < LOST_FACTOR * start))
    if len(lost):
        place = int(lost[0])
        yield Found(
            Severity.WARNING,
            f"{history.layers[place]} stands still: its updates fell from {start[place]:.1e} to {end[place]:.1e} of "
            f"its weights" + (f" (and {len(lost) - 1} layers more)" if len(lost) > 1 else ""),
            history.layers[place],
            {"update_ratio": float(end[place]), "before": float(start[place])},
            1.0 / len(lost),
        )


def _last_and_before(history: History, statistic: str) -> tuple[float, np.ndarray]:
    column = history.column(statistic, of="step")
    before = column[:-1][-WINDOW:]
    return float(column[-1]), before[np.isfinite(before) & (before > 0)]


def _recent(column: np.ndarray) -> np.ndarray:
    recent = column[-WINDOW:]
    return recent[np.isfinite(recent)]


def _medians(rows: np.ndarray) -> np.ndarray:
    """Return the median of every column, NaN where nothing was seen."""
    seen = ~np.isnan(rows).all(axis=0)
    medians = np.full(rows.shape[1], np.nan)
    medians[seen] = np.nanmedian(rows[:, seen], axis=0)
    return medians


def _grown_most(history: History, statistic: str) -> str | None:
    """Return the layer whose statistic at the last look lies furthest above its own median."""
    rows = history.column(statistic)[-WINDOW:]
    usual = _medians(rows[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.nan_to_num(rows[-1] / usual, nan=0.0, posinf=0.0)
    return history.layers[int(np.argmax(growth))] if growth.size and growth.max() > 0 else None


def _nothing(*_: object) -> Iterator[Found]:
    return iter(())


def _rule(
    code: str, title: str, symptom: Symptom, meaning: str, threshold: str, source: str, advice: str,
    watch: Callable[[History], Iterator[Found]],
) -> TimeRule:  # fmt: skip
    return TimeRule(code, title, symptom, meaning, threshold, source, advice, _nothing, watch)


RULES: tuple[TimeRule, ...] = (
    _rule(
        "SG503", "gradient spike", Symptom.EXPLODING,
        "One gradient is far larger than those before it: a bad batch, or the first step of a divergence.",
        "log of the global gradient norm over 6 robust standard deviations (median absolute deviation) above the "
        "median of the last 50 looks, and 5 times that median.",
        "Outlier rule of llm.c (z-scores of loss and norm); the factor is an own choice.",
        "Clip by global norm near the 90th percentile of past norms; look at the batch; lower the learning rate if "
        "spikes return.",
        spike,
    ),
    _rule(
        "SG504", "gradient drift", Symptom.EXPLODING,
        "The gradient norm grows steadily: the training moves towards a divergence.",
        "Medians of five successive parts of the last 50 looks rise without a turn, by a factor of 10 or more in all.",
        "Own choice.",
        "Lower the learning rate or add weight decay, and look at the layer named.",
        drift,
    ),
    _rule(
        "SG505", "oscillating loss", Symptom.LEARNING_RATE,
        "The loss jumps to and fro and does not fall: steps are too large for the curvature.",
        "Over 20 looks, 80 % of the loss's moves turn back, by 10 % or more of the loss, and its median does not fall.",
        "AUTOTRAINER (Zhang et al., ICSE 2021) names the symptom; thresholds are own choices.",
        "Lower the learning rate, or raise the batch size.",
        oscillation,
    ),
    _rule(
        "SG506", "stalled loss", Symptom.LEARNING_RATE,
        "The loss has not moved since the training began.",
        "After 50 looks the median loss of the last 25 lies less than 1 % below that of the first 5.",
        "AUTOTRAINER (Zhang et al., ICSE 2021), slow convergence; thresholds are own choices.",
        "Run steadygrad check on the set-up: it says whether gradients vanish, steps are too small or units are dead.",
        stalled,
    ),
    _rule(
        "SG507", "dying units", Symptom.DEAD_UNITS,
        "Units that worked are 0 for whole batches now; they get no gradient and may never come back.",
        "The share of a rectifier's units that are 0 for a whole batch grew by 0.25 or more, to 0.5 or more.",
        "AUTOTRAINER (Zhang et al., ICSE 2021), dying ReLU; thresholds are own choices.",
        "Lower the learning rate, or use a leaky or smooth activation.",
        dying,
    ),
    _rule(
        "SG508", "updates have collapsed", Symptom.VANISHING,
        "A layer has stopped to learn though the learning rate has not gone down.",
        "Median update-to-weight ratio of the last 5 looks below 1e-6 and below 1 % of that of the first 5 of the last "
        "50, at a learning rate of 10 % or more of its largest.",
        "TheDeepChecker (Ben Braiek and Khomh, TOSEM 2022) holds [1e-4, 1e-1] for healthy.",
        "Look at the layer's gradient: vanished, or blocked by saturated or dead units after it.",
        collapse,
    ),
    *(_rule(*check) for check in CHECKS),
)  # fmt: skip
