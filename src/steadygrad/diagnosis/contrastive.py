"""SG901 to SG905: how a restricted Boltzmann machine learns, read from its records of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from steadygrad.diagnosis.rule import Found, Rule
from steadygrad.records import Finding, Severity, Symptom

__all__ = ["RULES", "MachineRule", "Records", "judge_machine"]

Records = Sequence[Mapping[str, float]]
"""One record an epoch: ``learning_rate``, ``update_ratio``, ``dead_units``, ``stuck_units``, ``saturated``, and
``free_energy_gap`` with ``free_energy_gap_error`` where rows were held out."""

WINDOW = 3  # epochs that are judged together
# Hinton 2010, sec. 7: near 1e-3. Healthy machines on digits and MNIST show 5e-5 to 0.03, those at 20 times too large a
# rate 0.1 and more (docs/boltzmann.md).
LARGEST_RATIO, SMALLEST_RATIO = 0.08, 1e-6
USUAL_SHARE, WORST_SHARE = 0.5, 0.9
SATURATED = 0.9
GAP_ERRORS = 4.0


@dataclass(frozen=True)
class MachineRule(Rule):
    """A rule that looks at the records of a Boltzmann machine; one observation of a network tells it nothing."""

    watch: Callable[[Records], Iterator[Found]] = lambda records: iter(())


def judge_machine(records: Records, layer: str | None = None) -> list[Finding]:
    """Apply the rules after the last epoch; findings stand worst first.

    Args:
        records: One record an epoch, as ``RBM.history_``.
        layer: What the findings call the machine.
    """
    findings = [
        Finding(rule.code, rule.symptom, found.severity, found.message, rule.advice, layer, found.evidence)
        for rule in RULES
        for found in rule.watch(records)
    ]
    return sorted(findings, key=lambda finding: (-finding.severity, finding.code))


def fast(records: Records) -> Iterator[Found]:
    """Compare updates with weights; the first epochs start from weights near 0."""
    ratio = _recent(records, "update_ratio")
    if len(records) >= WINDOW and ratio > LARGEST_RATIO:
        yield Found(
            Severity.WARNING,
            f"one update changes the weights by {ratio:.0%} of themselves",
            evidence={"update_ratio": ratio},
        )


def slow(records: Records) -> Iterator[Found]:
    """Compare updates with weights while the learning rate has not gone down."""
    ratio, rate = _recent(records, "update_ratio"), _recent(records, "learning_rate")
    largest = max((record["learning_rate"] for record in records), default=0.0)
    if len(records) >= WINDOW and ratio < SMALLEST_RATIO and rate >= 0.1 * largest:
        yield Found(
            Severity.WARNING,
            f"one update changes the weights by {ratio:.1e} of themselves",
            evidence={"update_ratio": ratio},
        )


def silent(records: Records) -> Iterator[Found]:
    """Count hidden units that never switch."""
    dead, stuck = _recent(records, "dead_units"), _recent(records, "stuck_units")
    share = dead + stuck
    if share >= USUAL_SHARE:
        yield Found(
            Severity.ERROR if share >= WORST_SHARE else Severity.WARNING,
            f"{share:.0%} of the hidden units never switch: {dead:.0%} stay off and {stuck:.0%} on",
            evidence={"dead_units": dead, "stuck_units": stuck},
        )


def saturated(records: Records) -> Iterator[Found]:
    """Measure how much of the hidden layer answers at its bounds."""
    share = _recent(records, "saturated")
    silent_units = _recent(records, "dead_units") + _recent(records, "stuck_units")
    if share >= SATURATED and silent_units < USUAL_SHARE:  # silent units are told of by their own rule
        yield Found(
            Severity.WARNING,
            f"{share:.0%} of the hidden probabilities lie within 0.01 of 0 or 1",
            evidence={"saturated": share},
        )


def overfit(records: Records) -> Iterator[Found]:
    """Compare the free-energy gap with its lowest value so far."""
    if not records or "free_energy_gap" not in records[-1]:
        return
    gaps = [record["free_energy_gap"] for record in records]
    recent, lowest = _recent(records, "free_energy_gap"), min(gaps)
    noise = records[-1]["free_energy_gap_error"]
    if len(records) > WINDOW and recent > lowest + GAP_ERRORS * noise:
        yield Found(
            Severity.WARNING,
            f"held-out rows lie {recent:.1f} nats above training rows in free energy; the gap was {lowest:.1f} at "
            f"epoch {gaps.index(lowest) + 1}",
            evidence={"free_energy_gap": recent, "lowest": lowest, "error": noise},
        )


def _recent(records: Records, name: str) -> float:
    values = [record[name] for record in records[-WINDOW:] if name in record]
    return median(values) if values else 0.0


def _rule(
    code: str, title: str, symptom: Symptom, meaning: str, threshold: str, source: str, advice: str,
    watch: Callable[[Records], Iterator[Found]],
) -> MachineRule:  # fmt: skip
    return MachineRule(code, title, symptom, meaning, threshold, source, advice, lambda *_: iter(()), watch)


RULES: tuple[MachineRule, ...] = (
    _rule(
        "SG901", "a Boltzmann machine learns in leaps", Symptom.LEARNING_RATE,
        "Each update throws the weights about: chains and reconstructions cannot follow, and the likelihood falls.",
        "Median RMS of an update over RMS of the weights above 0.08 in the last 3 epochs.",
        "Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2010, sec. 7 (near 1e-3 is well); the "
        "bound is an own choice between healthy and sick machines.",
        "Lower learning_rate by a factor of 10, or the momentum.",
        fast,
    ),
    _rule(
        "SG902", "a Boltzmann machine stands still", Symptom.LEARNING_RATE,
        "The weights do not move: what comes out is the random start with the data's base rates.",
        "The same ratio below 1e-6 in the last 3 epochs, at a learning rate of 10 % or more of its largest.",
        "Hinton 2010, sec. 7; the bound is an own choice.",
        "Raise learning_rate; 0.1 suits binary units, 0.01 real ones.",
        slow,
    ),
    _rule(
        "SG903", "hidden units that never switch", Symptom.DEAD_UNITS,
        "Hidden units stay off, or on, whatever the data: they tell the layers above nothing.",
        "Half of the hidden units or more stay below 0.05, or above 0.95, for all rows of the last 10 batches; an "
        "error from 90 % on.",
        "Hinton 2010, sec. 11 to 12 (activities of hidden units); the thresholds are own choices.",
        "Lower learning_rate, keep centering on, lower sparsity_cost, or check that the inputs vary.",
        silent,
    ),
    _rule(
        "SG904", "saturated hidden units", Symptom.SATURATION,
        "Nearly all hidden probabilities are 0 or 1: weights are so large that features carry no shades, chains mix "
        "slowly, and a network on top gets vanishing gradients.",
        "90 % or more of the hidden probabilities of the last 10 batches lie within 0.01 of 0 or 1.",
        "Hinton 2010, sec. 10 (weight decay) and 16.1 (weights too large); the threshold is an own choice.",
        "Lower learning_rate, or set weight_decay to 1e-4 or more.",
        saturated,
    ),
    _rule(
        "SG905", "a Boltzmann machine overfits", Symptom.DATA,
        "Rows held out become less likely while training rows become more likely.",
        "Median free-energy gap of the last 3 epochs over 4 standard errors above its lowest value.",
        "Hinton 2010, sec. 6; the factor is an own choice.",
        "Stop there (early_stopping), use fewer hidden units or more weight_decay, or more data.",
        overfit,
    ),
)  # fmt: skip
