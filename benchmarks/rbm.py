"""Samples a second of a 784-500 machine, side by side: ours in float32 and bfloat16, scikit-learn's in float64.

    python benchmarks/rbm.py [--rows 12000] [--repeats 5] [--threads 1 2]

Every number is a median over rounds A B C A B C ... in one process, data random binary, batch 100, one pass. "Defaults"
is scikit-learn's machine as it comes: float64, batch 10. Ratios are to scikit-learn's float64 at batch 100 and at its
defaults. The floor is the time of the five products of a CD-1 step alone. Times are CPU seconds for one thread, which
other work on the machine disturbs least, and wall seconds for more. Ours include the look at all rows before training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

from steadygrad.boltzmann import RBM
from steadygrad.boltzmann.likelihood import annealed_importance_sampling

VISIBLE, HIDDEN, BATCH = 784, 500, 100
BUDGETS = {"float32 / sklearn float64": 2.2, "bfloat16 / sklearn float64": 3.5, "best / sklearn defaults": 7.0}
AIS_BUDGET = 3.0


def ours(rows: np.ndarray, precision: str, method: str) -> Callable[[], None]:
    def run() -> None:
        RBM(HIDDEN, visible="bernoulli", n_epochs=1, batch_size=BATCH, precision=precision, method=method).fit(rows)

    return run


def theirs(rows: np.ndarray, batch: int) -> Callable[[], None]:
    return lambda: BernoulliRBM(HIDDEN, n_iter=1, batch_size=batch).fit(rows.astype(np.float64))


def products(rows: np.ndarray, dtype: torch.dtype) -> Callable[[], None]:
    v, w = torch.rand(BATCH, VISIBLE).to(dtype), torch.rand(VISIBLE, HIDDEN).to(dtype)
    vv, hh = torch.rand(2 * BATCH, VISIBLE).to(dtype), torch.rand(2 * BATCH, HIDDEN).to(dtype)

    def run() -> None:
        for _ in range(len(rows) // BATCH):
            h = v @ w
            (h @ w.t()) @ w
            vv.t() @ hh

    return run


def speeds(
    cases: dict[str, Callable[[], None]], rows: int, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return samples a second by case, medians over interleaved rounds after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, run in cases.items():
            start = clock()
            run()
            if turn:
                times[name].append(clock() - start)
    return {name: rows / statistics.median(values) for name, values in times.items()}


def ais_steps(repeats: int, temperatures: int = 100, chains: int = 100) -> dict[str, float]:
    """Return milliseconds a temperature of annealed importance sampling, ours and rbms' where it is installed."""
    rbm = RBM(HIDDEN, visible="bernoulli", n_epochs=1, random_state=0).fit(np.zeros((BATCH, VISIBLE), np.float32))
    machine, betas = rbm.machine_, torch.linspace(0, 1, temperatures + 1)
    generator = torch.Generator().manual_seed(0)
    cases: dict[str, Callable[[], object]] = {
        "ours": lambda: annealed_importance_sampling(machine, betas, chains, generator)
    }
    try:
        from rbms.bernoulli_bernoulli import BBRBM
        from rbms.partition_function.ais import compute_partition_function_ais
    except ImportError:
        print("  rbms is not installed, so that its AIS is not compared: pip install rbms")
    else:
        same = BBRBM(machine.weight, machine.visible.bias, machine.hidden.bias)
        cases["rbms"] = lambda: compute_partition_function_ais(chains, temperatures + 1, same)
    rates = speeds(cases, temperatures, repeats, time.process_time)
    return {name: 1e3 / rate for name, rate in rates.items()}


def _tell(name: str, ratio: float, budget: float) -> None:
    print(f"  {name:28} {ratio:5.2f} (budget {budget}) {'held' if ratio >= budget else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    rows = (np.random.default_rng(0).random((options.rows, VISIBLE)) < 0.2).astype(np.float32)
    cases = {
        "sklearn float64": theirs(rows, BATCH),
        "sklearn defaults": theirs(rows, 10),
        "float32 cd": ours(rows, "float32", "cd"),
        "float32 pcd": ours(rows, "float32", "pcd"),
        "bfloat16 cd": ours(rows, "bfloat16", "cd"),
        "bfloat16 pcd": ours(rows, "bfloat16", "pcd"),
        "products float32": products(rows, torch.float32),
        "products bfloat16": products(rows, torch.bfloat16),
    }
    for threads in options.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            found = speeds(cases, len(rows), options.repeats, time.process_time if threads == 1 else time.perf_counter)
        print(f"\n{threads} thread(s), {VISIBLE}-{HIDDEN}, batch {BATCH}, {len(rows)} rows")
        for name, speed in found.items():
            print(f"  {name:20} {speed:9,.0f} samples/s {speed / found['sklearn float64']:6.2f} x sklearn float64")
        best = max(speed for name, speed in found.items() if name.startswith(("float32", "bfloat16")))
        ratios = (
            found["float32 pcd"] / found["sklearn float64"],
            found["bfloat16 pcd"] / found["sklearn float64"],
            best / found["sklearn defaults"],
        )
        for (name, budget), ratio in zip(BUDGETS.items(), ratios, strict=True):
            _tell(name, ratio, budget)
        print(f"  bfloat16 cd is {found['bfloat16 cd'] / found['products bfloat16']:.0%} of its products alone")
        steps = ais_steps(options.repeats)
        print("  AIS, ms a temperature with 100 chains: " + ", ".join(f"{k} {v:.2f}" for k, v in steps.items()))
        if "rbms" in steps:
            _tell("AIS against rbms", steps["rbms"] / steps["ours"], AIS_BUDGET)


if __name__ == "__main__":
    main()
