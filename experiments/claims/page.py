"""``docs/claims.md``, written from the results: ``python -m experiments.claims.page``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from experiments.claims import results
from experiments.claims.claim import ARTICLES, Claim, description, load_claims
from experiments.claims.results import Result
from experiments.claims.verdict import Answer, Condition, Ruling, Verdict
from steadygrad.records.serial import write_whole

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
SEEDS = 5  # fewer decide nothing
HEAD = """# The articles' claims, tested

Five articles about vanishing and exploding gradients stood at the start of this project. Each claim of theirs that can
be tested is put to the test by a small experiment whose criterion was stated before: one file a claim in
`experiments/claims/catalogue`. Claims are in our words. `make claims` measures what is missing and writes this page;
`python -m experiments.claims --only NAME` runs one of them.

<!-- Written by experiments/claims/page.py from experiments/claims/results. -->

**How to read it.** A claim is tried in one circumstance or several. In each the effect is measured on every seed; pairs
share the seed, the initial weights and the order of the data. The answer is *yes* if the whole 95 % interval of the
mean effect (Student's t over the seeds) lies within the bounds, *no* if it lies wholly beyond them, else *unclear*. A
claim **holds** if all answers are yes, **holds under conditions** if some are, is **false** if all are no, and
**undecided** if none is yes and some are unclear. "False" means false in these circumstances: small networks on
scikit-learn's 8 x 8 digits (unless told otherwise), a few hundred steps, at the settings given.
"""


def write() -> None:
    """Write the page."""
    write_whole(PAGE, text())


def text() -> str:
    """Return the page, from the results on disk."""
    tried = {name: (claim, results.load(name)) for name, claim in load_claims().items()}
    judged = {
        name: (claim, found, claim.judge([result.numbers for result in found]))
        for name, (claim, found) in tried.items()
        if len(found) >= SEEDS
    }
    order = sorted(judged, key=lambda name: list(Ruling).index(judged[name][2].ruling))
    sections = "".join(_section(name, *judged[name]) for name in order)
    missing = [name for name in tried if name not in judged]
    how = _how([found for _, found, _ in judged.values()], missing)
    return HEAD + how + _summary(order, judged) + _articles() + sections


def _how(found: list[list[Result]], missing: list[str]) -> str:
    ran = sorted({f"on {result.machine}, torch {result.torch}, {result.date}" for each in found for result in each})
    waiting = f"\nStill to be measured, by `make claims`: {', '.join(missing)}.\n" if missing else ""
    return f"\nMeasured with `python -m experiments.claims` {'; '.join(ran)}.\n{waiting}"


def _summary(order: list[str], judged: dict[str, tuple[Claim, list[Result], Verdict]]) -> str:
    counts = Counter(verdict.ruling for *_, verdict in judged.values())
    counted = ", ".join(f"{counts[ruling]} {ruling}" for ruling in Ruling if counts[ruling])
    rows = "".join(
        f"| [{claim.sentence}](#{name}) | {', '.join(claim.articles)} | {verdict.ruling} |\n"
        for name, (claim, _, verdict) in ((name, judged[name]) for name in order)
    )
    return f"\n## Verdicts\n\n{len(order)} claims: {counted}.\n\n| claim | articles | verdict |\n|---|---|---|\n{rows}"


def _articles() -> str:
    rows = "".join(f"- {number}: {about}\n" for number, about in ARTICLES.items())
    return f"\nThe articles:\n\n{rows}"


def _section(name: str, claim: Claim, found: list[Result], verdict: Verdict) -> str:
    parts = [
        f"\n## {name}\n",
        f"**{claim.sentence}** (articles {', '.join(claim.articles)})\n",
        f"- **Experiment:** {' '.join(description(name).split())}",
        f"- **Criterion:** {claim.criterion}",
        f"- **Verdict: {verdict.ruling}**{_where(verdict)}\n",
        "| circumstance | effect, mean | 95 % interval | wanted | met |\n|---|---|---|---|---|",
        *(_row(condition) for condition in verdict.conditions),
        f"\n| measured over {len(found)} seeds | mean | least | most |\n|---|---|---|---|",
        *(_spread(key, [result.numbers[key] for result in found]) for key in found[0].numbers),
    ]
    return "\n".join(parts) + "\n"


def _where(verdict: Verdict) -> str:
    if verdict.ruling is not Ruling.CONDITIONS:
        return ""
    told = [f"{answer}: {'; '.join(verdict.where(answer))}" for answer in Answer if verdict.where(answer)]
    return " (" + ". ".join(told) + ")"


def _row(condition: Condition) -> str:
    low, high = condition.interval
    figures = f"{condition.mean:.3g} | {low:.3g} to {high:.3g}"
    return f"| {condition.where} | {figures} | {condition.bounds} | {condition.answer} |"


def _spread(key: str, numbers: list[float]) -> str:
    return f"| {key} | {np.mean(numbers):.3g} | {min(numbers):.3g} | {max(numbers):.3g} |"


if __name__ == "__main__":
    write()
