"""Treat deep networks that sit at chance, on real MNIST and on a regression, and compare with a shallow reference.

Run: ``python benchmarks/treat.py [--data-dir DIR] [--workers N]``, about five minutes on two idle cores. Nothing is
chosen on the validation data, which only score the proof on three fresh seeds. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.doctor.reference import reference_setup
from steadygrad.doctor.trials import Patients, TrainTask, run_train_task
from steadygrad.training.datasets import load

DEPTH, WIDTH, STEPS, BATCH = 30, 128, 1500, 128
REGRESSION_DEPTH, REGRESSION_WIDTH = 20, 64


def plain(inputs: int, outputs: int, depth: int, width: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Return a plain network of ``depth`` weight layers with PyTorch's default initialization."""
    layers: list[nn.Module] = []
    for layer in range(depth - 1):
        layers += [nn.Linear(inputs if layer == 0 else width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def mnist(activation: Callable[[], nn.Module], data_dir: str | None) -> sg.TrainingSetup:
    data = load("mnist", data_dir)
    model = plain(784, 10, DEPTH, WIDTH, activation)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return sg.TrainingSetup(model, F.cross_entropy, data.train, optimizer, data.test, batch_size=BATCH, steps=STEPS)


def housing(rows: int = 12_000) -> tuple[Tensor, Tensor]:
    """Return eight features on the scales of the California housing table, and prices in dollars.

    Made by formula from a fixed seed: income, age, rooms, bedrooms, population, occupancy, latitude, longitude; the
    price follows income, crowding and two hills on the map, with 10 % noise.
    """
    g = torch.Generator().manual_seed(0)
    normal, uniform = partial(torch.randn, rows, generator=g), partial(torch.rand, rows, generator=g)
    income = (0.5 * normal() + 1.2).exp()
    age, rooms = 1 + 51 * uniform(), (0.3 * normal() + 1.6).exp()
    bedrooms, population = rooms / 5 + 0.1 * normal().abs(), (0.8 * normal() + 7).exp()
    occupancy, latitude, longitude = (0.25 * normal() + 1).exp(), 32.5 + 9.5 * uniform(), -124.3 + 10 * uniform()
    hills = sum((-((latitude - a) ** 2 + (longitude - b) ** 2) / 2).exp() for a, b in ((34.0, -118.2), (37.8, -122.4)))
    price = 40_000 * income + 90_000 * hills - 8_000 * occupancy + 600 * age + 5_000 * (rooms - 2 * bedrooms)
    price = price * (1 + 0.1 * normal())
    x = torch.stack([income, age, rooms, bedrooms, population, occupancy, latitude, longitude], 1)
    return x, price.unsqueeze(1)


def regression() -> sg.TrainingSetup:
    x, y = housing()
    model = plain(8, 1, REGRESSION_DEPTH, REGRESSION_WIDTH, nn.ReLU)
    optimizer = partial(torch.optim.SGD, lr=0.01)
    return sg.TrainingSetup(
        model, F.mse_loss, (x[:10_000], y[:10_000]), optimizer, (x[10_000:], y[10_000:]), batch_size=BATCH, steps=STEPS
    )


def reference_scores(setup: sg.TrainingSetup, seeds: range) -> list[float]:
    """Return what the shallow reference reaches on the validation data."""
    shallow, prescription = reference_setup(setup)
    patients = Patients(setup, shallow)
    return [run_train_task(patients, TrainTask(prescription, seed, reference=True)).run.score for seed in seeds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with mnist/*.gz; else STEADYGRAD_DATA or a download")
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    torch.manual_seed(0)
    cases = {
        "MNIST, 30-layer ReLU": (mnist(nn.ReLU, options.data_dir), 0.03),
        "MNIST, 30-layer tanh": (mnist(nn.Tanh, options.data_dir), 0.03),
        "housing, 20-layer ReLU": (regression(), 0.05),
    }
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {date.today()}\n")
    print("| case | metric | before | after | shallow reference | prescription | verdict | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    missed = False
    for name, (setup, margin) in cases.items():
        started = time.monotonic()
        treatment = sg.treat(setup, executor=sg.Processes(options.workers))
        seconds = time.monotonic() - started
        reference = reference_scores(setup, range(1, 4))
        proof = treatment.proof
        before, after = ([run.score for run in runs] for runs in (proof.before, proof.after)) if proof else ([], [])
        missed |= not after or any(a < r - margin for a, r in zip(after, reference, strict=True))
        print(
            f"| {name} | {proof.metric if proof else ''} | {_scores(before)} | {_scores(after)} | {_scores(reference)} "
            f"| {treatment.prescription} | {treatment.verdict} | {seconds:.0f} |",
            flush=True,
        )
    return int(missed)


def _scores(scores: list[float]) -> str:
    return f"{mean(scores):.3f} ({', '.join(f'{score:.3f}' for score in scores)})" if scores else "none"


if __name__ == "__main__":
    sys.exit(main())
