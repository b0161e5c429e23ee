"""Put the claims to the test: ``python -m experiments.claims [--only NAME] [--quick] [--seeds N]``."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments.claims import page, results
from experiments.claims.claim import fingerprint, load_claims
from experiments.claims.results import Result
from experiments.claims.verdict import Answer
from steadygrad.errors import SteadygradError
from steadygrad.training import Executor, Processes, Serial

QUICK_SEEDS = 2

Unit = tuple[str, int, bool]
"""Name of a claim, seed, whether in the quick form."""


@dataclass(frozen=True)
class Session:
    """What all measurements of a run share; fingerprints are taken before files can change under it."""

    machine: str
    fingerprints: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print the verdicts, and write the page of the docs."""
    options = _options(arguments)
    names = _chosen(options.only)
    seeds = range(options.seeds or (QUICK_SEEDS if options.quick else page.SEEDS))
    session = Session(options.machine, {name: fingerprint(name) for name in names})
    found = {name: [] if options.quick or options.again else results.load(name) for name in names}
    units = [
        (name, seed, options.quick) for name in names for seed in seeds if seed not in {r.seed for r in found[name]}
    ]
    failures: dict[str, str] = {}
    try:
        executor: Executor = Serial() if options.workers == 1 else Processes(options.workers)
        for (name, *_), result in _measured(executor, units, session):
            if isinstance(result, str):
                failures[name] = result
                continue
            found[name].append(result)
            if not options.quick:
                results.save(name, found[name])
    except KeyboardInterrupt:
        print("Interrupted. What was measured is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except SteadygradError as error:  # of the executor
        print(error, file=sys.stderr)
        return 1
    Console().print(_table(found))
    if not options.quick:
        page.write()
    for name, message in failures.items():
        print(f"{name}: not measured. {message}", file=sys.stderr)
    return 1 if failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.claims", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these claims only")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; nothing is kept")
    parser.add_argument("--seeds", type=int, help=f"number of seeds, at least 2 (default {page.SEEDS})")
    parser.add_argument("--workers", type=int, help="processes (default one a core; 1 is this one)")
    parser.add_argument("--again", action="store_true", help="measure also what is measured already")
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores, {platform.machine()}", help="named in the docs")
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 2:
        parser.error(
            f"--seeds: expected at least 2, got {options.seeds}. One seed shows no spread and decides nothing."
        )
    return options


def _chosen(only: list[str] | None) -> list[str]:
    known = list(load_claims())
    for name in only or ():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise SystemExit(f"--only: expected the name of a claim, got {name}. {hint}")
    return only or known


def _measured(executor: Executor, units: list[Unit], session: Session) -> Iterator[tuple[Unit, Result | str]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("claims", total=len(units))
        for unit, result in zip(units, executor.map(measure_one, session, units), strict=True):
            yield unit, result
            progress.update(task, advance=1, description=unit[0])


def measure_one(session: Session, unit: Unit) -> Result | str:
    """Measure one claim on one seed; a message where it cannot be measured here, as without its data."""
    name, seed, quick = unit
    start = time.perf_counter()
    try:
        numbers = load_claims()[name].measure(seed, quick)
    except SteadygradError as error:
        return str(error)
    seconds = round(time.perf_counter() - start, 2)
    numbers = {key: float(f"{number:.6g}") for key, number in numbers.items()}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Result(seed, numbers, seconds, session.fingerprints[name], torch.__version__, session.machine, today)


def _table(found: dict[str, list[Result]]) -> Table:
    table = Table("claim", "seeds", "verdict", "where it holds")
    for name, claim in load_claims().items():
        if name in found:
            verdict = claim.judge([result.numbers for result in found[name]])
            table.add_row(name, str(len(found[name])), verdict.ruling, "; ".join(verdict.where(Answer.YES)))
    return table


if __name__ == "__main__":
    sys.exit(main())
