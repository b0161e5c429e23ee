"""A unit of work: some configurations of a grid in, their results out; the same wherever it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from steadygrad.errors import SteadygradError, UsageError
from steadygrad.lab.compiled import Compiled
from steadygrad.lab.grid import Grid
from steadygrad.lab.result import Configuration, Result
from steadygrad.lab.stack import Case, Plain, Stack
from steadygrad.lab.vmapped import Unstackable, Vmapped, shape_of
from steadygrad.training import TrainingSetup, seeded

__all__ = ["train_unit"]

_log = logging.getLogger(__name__)


def train_unit(grid: Grid, configurations: Sequence[Configuration]) -> list[Result]:
    """Train every configuration and return the results in order.

    What can is trained in compiled code, else runs of one shape as one stack, else one by one.

    Raises:
        UsageError: If the factory says that an argument or a data file is wrong: all other runs would meet the same.
            Any other failure of a run is its result.
    """
    results: dict[int, Result] = {}
    cases: dict[int, Case] = {}
    alike: dict[Any, list[int]] = {}
    for place, configuration in enumerate(configurations):
        try:
            cases[place] = _build(grid, configuration)
            alone = Compiled.of(cases[place]) is not None
            alike.setdefault((not alone and shape_of(cases[place].setup)) or place, []).append(place)
        except UsageError:
            raise
        except Exception as error:  # whatever a factory may raise
            results[place] = Result({}, problem=_problem(error))
    for places in alike.values():
        trained = _train_alike([cases[place] for place in places], grid.looks)
        results.update(zip(places, trained, strict=True))
    return [replace(results[place], configuration=each) for place, each in enumerate(configurations)]


def _build(grid: Grid, configuration: Configuration) -> Case:
    seed = configuration.get("seed", 0)
    if not isinstance(seed, int):
        raise UsageError(f"Grid: expected whole numbers on axis seed, got {seed!r}.")
    with seeded(seed):
        made = grid.factory(**{axis: value for axis, value in configuration.items() if grid.passes(axis)})
    setup, test = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(setup, TrainingSetup):
        raise UsageError(
            f"Grid: expected the factory to return a TrainingSetup, or one and test data, got {type(made).__name__}."
        )
    return Case(setup, seed, test)


def _train_alike(cases: Sequence[Case], looks: int) -> list[Result]:
    if len(cases) > 1:
        try:
            return _train(Vmapped(cases), cases, looks)
        except Unstackable as reason:
            _log.info("%d runs are trained one by one: %s", len(cases), reason)
    return [_train_alone(case, looks) for case in cases]


def _train_alone(case: Case, looks: int) -> Result:
    try:
        return _train(Compiled.of(case) or Plain(case), [case], looks)[0]
    except UsageError:
        raise
    except Exception as error:  # whatever a model or a loss may raise
        return Result({}, problem=_problem(error))


def _train(stack: Stack, cases: Sequence[Case], looks: int) -> list[Result]:
    """Train to the end, looking at the validation scores on the way; the results have no configuration yet."""
    start = time.process_time()
    setup = cases[0].setup
    results = [Result({}, engine=stack.engine) for _ in cases]
    times = sorted({max(1, round(setup.steps * (look + 1) / looks)) for look in range(looks)})
    for before, now in pairwise([0, *times]):
        if all(result.diverged for result in results):
            break
        losses = stack.advance(now - before)
        for run, result in enumerate(results):
            if result.diverged or not bool(losses[run].isfinite().all()):
                results[run] = replace(result, diverged=True)
                continue
            data = cases[run].setup.validation
            results[run] = replace(
                result,
                looked=(*result.looked, now),
                losses=(*result.losses, losses[run].mean().item()),
                scores=result.scores if data is None else (*result.scores, stack.score(run, data)),
            )
    for run, (case, result) in enumerate(zip(cases, results, strict=True)):
        if not result.diverged:
            test = None if case.test is None else stack.score(run, case.test)
            results[run] = replace(result, train=stack.score(run, case.setup.train), test=test)
    seconds = (time.process_time() - start) / len(cases)
    return [replace(result, seconds=seconds) for result in results]


def _problem(error: Exception) -> str:
    line = (str(error).strip().splitlines() or ["no message"])[0]
    return line if isinstance(error, SteadygradError) else f"{type(error).__name__}: {line}"
