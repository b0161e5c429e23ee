"""``steadygrad demo``: a sick deep network on embedded data, diagnosed, cured, proven."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import nn

from steadygrad import doctor
from steadygrad.cli.options import Traceback, Workers, check_report, console
from steadygrad.cli.progress import live_progress
from steadygrad.cli.treat import Seed, executor_of, print_treatment
from steadygrad.diagnosis import diagnose
from steadygrad.report.text import diagnosis_text
from steadygrad.training import TrainingSetup, seeded
from steadygrad.training.datasets import load

__all__ = ["demo", "sick_setup"]

DEPTH, WIDTH, STEPS = 30, 64, 600


def demo(
    report: Annotated[Path, typer.Option(help="Where to write the report (.html).")] = Path("steadygrad-demo.html"),
    seed: Seed = 0,
    workers: Workers = None,
    traceback: Traceback = False,
) -> None:
    """See a 30-layer sigmoid network on handwritten digits diagnosed, cured and proven, in about a minute."""
    check_report(report, (".html",))
    screen = console()
    setup = sick_setup(seed)
    screen.print(f"A {DEPTH}-layer sigmoid network, width {WIDTH}, SGD 0.1, on scikit-learn's digits.\n", markup=False)
    screen.print(diagnosis_text(diagnose(setup)))
    screen.print()
    with live_progress() as progress:
        treatment = doctor.treat(setup, seed=seed, executor=executor_of(workers), progress=progress)
    treatment.save(report)
    print_treatment(screen, treatment, report)


def sick_setup(seed: int) -> TrainingSetup:
    """Return the network of the demo with PyTorch's default initialization; random states stay as they are."""
    data = load("digits")
    layers: list[nn.Module] = []
    with seeded(seed):
        for depth in range(DEPTH - 1):
            layers += [nn.Linear(data.train[0].shape[1] if depth == 0 else WIDTH, WIDTH), nn.Sigmoid()]
        model = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    return TrainingSetup(
        model=model,
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        train=data.train,
        validation=data.test,
        steps=STEPS,
    )
