"""The tables of a report as cells of plain text; ``text`` and ``page`` give them their looks.

Everything that a user may have named (layers, messages, reasons) passes through :func:`plain` here or in ``letter``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from steadygrad.records import Blueprint, LayerStats, Moments, Observation, Outcome, Proof, Run, Trial

__all__ = [
    "Column",
    "Gap",
    "Row",
    "Sheet",
    "layer_name",
    "layer_sheet",
    "mean_and_spread",
    "number",
    "plain",
    "proof_sheet",
    "trial_sheet",
    "yardsticks",
]

NOTHING = "\N{EN DASH}"  # in a cell: does not exist, or was not seen


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column; numbers are set flush right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One cell a column; a marked row is the one to look at and is never left out."""

    cells: tuple[str, ...]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands for ``count`` rows that were left out."""

    count: int

    def __str__(self) -> str:
        return f"… {self.count:,} {'row' if self.count == 1 else 'rows'} left out"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: ``footer`` holds sums and means, ``mark`` says what a marked row is, if no cell does."""

    columns: tuple[Column, ...]
    rows: tuple[Row | Gap, ...]
    footer: tuple[Row, ...] = ()
    caption: str = ""
    mark: str = ""


def plain(text: str, limit: int = 1000) -> str:
    """Return ``text`` as one line that is safe to print: no control or direction characters, at most ``limit`` long.

    White space becomes single spaces, unprintable characters (escape codes, lone surrogates) their Python escapes,
    and the middle of an overlong text an ellipsis.
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    if len(line) <= limit:
        return line
    head = (limit - 1) // 2
    return f"{line[:head]}…{line[head + 1 - limit :]}"


def number(value: float | None) -> str:
    """Return ``value`` in few characters: 3 digits where they fit, else short scientific notation.

    Example:
        >>> [number(x) for x in (0.0, 0.12345, 1234.5, 3.14e-07, float("inf"))]
        ['0', '0.123', '1.2e3', '3.1e-7', 'inf']
    """
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 0.01 <= abs(value) < 999.5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def score(value: float) -> str:
    """Return a score with three decimals, so that a column of them lines up."""
    return f"{value:.3f}" if abs(value) < 1000 else number(value)


def thin(rows: Sequence[Row], limit: int) -> tuple[Row | Gap, ...]:
    """Keep the first and the last rows, ``limit`` in all, and every marked one; gaps say how many went."""
    if len(rows) <= limit:
        return tuple(rows)
    head, tail = limit - limit // 2, limit // 2
    kept: list[Row | Gap] = []
    missing = 0
    for position, row in enumerate(rows):
        if position < head or position >= len(rows) - tail or row.marked:
            if missing:
                kept.append(Gap(missing))
                missing = 0
            kept.append(row)
        else:
            missing += 1
    return (*kept, Gap(missing)) if missing else tuple(kept)


def layer_name(name: str, limit: int = 80) -> str:
    """Return a printable layer name; the root module, whose name is empty, reads ``(model)``."""
    return plain(name, limit) or "(model)"


def layer_sheet(
    observation: Observation, blueprint: Blueprint | None, guilty: str | None = None, limit: int = 40
) -> Sheet:
    """Return one row a layer call, in execution order; the guilty layer is marked. Kinds need the blueprint."""
    kinds = {layer.name: layer.kind for layer in blueprint.layers} if blueprint else None
    titles = ("output rms", "signal", "gradient rms", "weight rms", "weight grad rms", "update ratio")
    named = (Column("layer"),) if kinds is None else (Column("layer"), Column("kind"))
    columns = (*named, *(Column(title, numeric=True) for title in titles))
    rows = [_layer_row(stats, kinds, guilty) for stats in observation.layers]
    return Sheet(columns, thin(rows, limit), mark="guilty layer")


def _layer_row(stats: LayerStats, kinds: Mapping[str, str] | None, guilty: str | None) -> Row:
    cells = (
        layer_name(stats.name),
        *(() if kinds is None else (plain(kinds.get(stats.name, NOTHING), 40),)),
        _rms(stats.output),
        number(stats.signal),
        _rms(stats.output_grad),
        _rms(stats.weight),
        _rms(stats.weight_grad),
        number(stats.update_ratio),
    )
    return Row(cells, marked=guilty is not None and stats.name == guilty)


def _rms(moments: Moments | None) -> str:
    if moments is None:
        return NOTHING
    return "nan/inf" if moments.nonfinite else number(moments.rms)


def trial_sheet(trials: Sequence[Trial], limit: int = 40) -> Sheet:
    """Return one row a trial: what was tried, its last score, its cost in optimizer steps, and how it ended."""
    columns = (Column("#", numeric=True), Column("tried"), Column("score", numeric=True))
    cost, outcome = Column("cost (steps)", numeric=True), Column("outcome")
    rows = []
    for position, trial in enumerate(trials, start=1):
        result = run_score(trial.runs[-1]) if trial.runs else NOTHING
        ending = f"{trial.outcome.value}: {plain(trial.reason)}" if trial.reason else trial.outcome.value
        cells = (str(position), plain(str(trial.prescription)), result, f"{trial.cost:,}", ending)
        rows.append(Row(cells, marked=trial.outcome is Outcome.CHOSEN))
    return Sheet((*columns, cost, outcome), thin(rows, limit))


def run_score(run: Run) -> str:
    """Return the score of a run, or the word ``diverged``."""
    return "diverged" if run.diverged or not math.isfinite(run.score) else score(run.score)


def proof_sheet(proof: Proof) -> Sheet:
    """Return one row a seed, the trainings before beside those after, with mean and standard deviation at the foot."""
    metric = plain(proof.metric, 40)
    titles = ("seed", "steps", f"{metric} before", f"{metric} after", "final loss before", "final loss after")
    rows = tuple(_pair(before, after) for before, after in zip_longest(proof.before, proof.after))
    mean = Row(("mean ± sd", "", mean_and_spread(proof.before), mean_and_spread(proof.after), "", ""))
    columns = (Column("seed"), *(Column(title, numeric=True) for title in titles[1:]))
    caption = ", ".join([f"{metric}: higher is better", *map(" ".join, yardsticks(proof))])
    return Sheet(columns, rows, footer=(mean,), caption=caption)


def yardsticks(proof: Proof) -> list[tuple[str, str]]:
    """Return the names and values of the scores that runs are held against, where they are known."""
    known = (("chance", proof.chance), ("goal", proof.goal))
    return [(name, score(value)) for name, value in known if value is not None]


def _pair(before: Run | None, after: Run | None) -> Row:
    runs = [run for run in (before, after) if run is not None]
    steps = " / ".join(dict.fromkeys(f"{run.steps:,}" for run in runs))  # one number where both are the same
    scores = (run_score(run) if run else NOTHING for run in (before, after))
    losses = (number(run.losses[-1]) if run and run.losses else NOTHING for run in (before, after))
    return Row((str(runs[0].seed), steps, *scores, *losses))


def mean_and_spread(runs: tuple[Run, ...]) -> str:
    """Return ``mean ± sd`` of the scores, or how many runs diverged, since those have no score to average."""
    diverged = sum(run_score(run) == "diverged" for run in runs)
    if diverged or not runs:
        return f"{diverged} of {len(runs)} diverged" if runs else NOTHING
    mean, deviation = Proof.spread(runs)
    return f"{score(mean)} ± {score(deviation)}"
