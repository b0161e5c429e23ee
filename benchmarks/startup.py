"""Seconds until the first result of a grid's executors, by turns; exit code 1 if start-up without Ray exceeds its bar.

    python benchmarks/startup.py [--rounds 5] [--workers 2]

A worker that trains has to import torch, as any fresh Python has, and steadygrad. "Import" is that alone: as many fresh
interpreters at once as there are workers, until the last one is ready. Start-up is the time to the first result less
the import: what the executor itself adds. Every pool is new. Ray, where it is installed, begins a cluster of its own.
"""

from __future__ import annotations

import argparse
import operator
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

from steadygrad.training import Executor, Processes, Serial
from steadygrad.training.ray_cluster import RayCluster

BAR = 0.5  # seconds


def import_seconds(workers: int) -> float:
    """Return the time in which fresh interpreters import what a worker needs."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", "import joblib.externals.loky, steadygrad.training; print()"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(workers)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    seconds = time.perf_counter() - begin
    for process in started:
        process.communicate()
    return seconds


def first_result(make: Callable[[], Executor], items: int) -> float:
    """Return the time from the executor's making to its first result."""
    begin = time.perf_counter()
    results = make().map(operator.mul, 2, range(items))
    assert next(results) == 0
    seconds = time.perf_counter() - begin
    assert list(results) == [2 * item for item in range(1, items)]
    return seconds


def ray_result(workers: int) -> float:
    """Return the same of a Ray cluster, which ends afterwards."""
    import ray

    seconds = first_result(lambda: RayCluster(workers=workers), workers)
    ray.shutdown()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    workers = options.workers
    ways: dict[str, Callable[[], float]] = {
        "import": lambda: import_seconds(workers),
        "Serial": lambda: first_result(Serial, workers),
        "Processes": lambda: first_result(lambda: Processes(workers), workers),
    }
    if find_spec("ray"):
        ways["RayCluster"] = lambda: ray_result(workers)
    rounds = [{name: way() for name, way in ways.items()} for _ in range(options.rounds)]
    print(f"{workers} workers, medians of {options.rounds} rounds\n")
    print("| executor | first result, s | start-up, s |\n|---|---|---|")
    print(f"| import alone | {median(each['import'] for each in rounds):.2f} | |")
    missed = False
    for name in list(ways)[1:]:
        first = median(each[name] for each in rounds)
        own = median(each[name] - each["import"] * (name != "Serial") for each in rounds)
        print(f"| {name} | {first:.2f} | {own:.2f} |")
        missed |= name != "RayCluster" and own > BAR
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
