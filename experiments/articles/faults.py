"""The faults of the articles' programs, restated in as little code as shows them, and what catches each.

python -m experiments.articles.faults
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from steadygrad import Monitor, TrainingSetup, diagnose
from steadygrad.records import Severity
from steadygrad.training import seeded
from steadygrad.training.datasets import load

STEPS = 24


@dataclass(frozen=True)
class Fault:
    """One fault of an article's program.

    Attributes:
        article: Its number.
        what: The fault, in words.
        program: Runs it and returns the codes of what was found.
        caught_by: ``check``, ``watch``, ``Python`` or ``nothing``.
        code: The rule that finds it, or the class of the exception; empty for nothing.
        why: What follows from it or, if nothing catches it, why nothing can.
    """

    article: str
    what: str
    program: Callable[[], set[str]]
    caught_by: str
    code: str
    why: str


def checked(setup: TrainingSetup) -> set[str]:
    """Return the codes of the warnings and errors of ``steadygrad check``."""
    return {finding.code for finding in diagnose(setup).findings if finding.severity >= Severity.WARNING}


def watched(after_step: Callable[[nn.Module, torch.optim.Optimizer], None], steps: int = STEPS) -> set[str]:
    """Return the codes of what the monitor finds in article 003's loop, with something done after each step."""
    with seeded(0):
        model = nn.Linear(10, 1)
        x, y = torch.randn(steps, 20, 10), torch.randn(steps, 20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=2, on_alarm=lambda finding: None) as monitor:
        for inputs, targets in zip(x, y, strict=True):
            F.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            after_step(model, optimizer)
    return {finding.code for finding in monitor.findings}


def raised(program: Callable[[], object]) -> set[str]:
    """Return the class of the exception that a program ends with."""
    try:
        program()
    except Exception as error:  # whatever it is, its name is what is wanted
        return {type(error).__name__}
    return set()


def network_without_pretraining() -> set[str]:
    """Article 000's network as printed, here on 64 features."""
    with seeded(0):
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((64, 500, 300, 200)):
            linear = nn.Linear(inputs, outputs)
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Sigmoid()]
        model = nn.Sequential(*layers, nn.Linear(200, 10))
    return checked(TrainingSetup(model, F.cross_entropy, load("digits").train))


def keras_network(head: nn.Module, learnable: bool) -> set[str]:
    """Article 004's network in PyTorch, with a softmax or without, on classes that can be learned or random ones."""
    with seeded(0):
        model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10), head)
        x = torch.rand(1000, 100)
        y = ((x - 0.5) @ torch.randn(100, 10)).argmax(1) if learnable else torch.randint(10, (1000,))
    return checked(TrainingSetup(model, F.cross_entropy, (x, y)))


def shrink(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Do what article 003 calls clipping, and zero the gradients."""
    for parameter in model.parameters():
        parameter.data *= 0.99
    optimizer.zero_grad()


def score_against_inputs(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Score the network against its own inputs, as article 003 does after training."""
    optimizer.zero_grad()
    with torch.no_grad():
        inputs = torch.randn(20, 10)
        F.mse_loss(model(inputs).expand(20, 10), inputs)


FAULTS = (
    Fault(
        "000", "the stacked machines are never pretrained: sigmoids with weights from N(0, 0.01²)",
        network_without_pretraining, "check", "SG102", "the signal of the input is lost on the way to the output",
    ),
    Fault(
        "000", "a module is used that is not imported",
        lambda: raised(lambda: eval("F.cross_entropy", {"torch": torch})), "Python", "NameError", "it says so",
    ),
    Fault(
        "003", "gradients are never zeroed",
        lambda: watched(lambda model, optimizer: None), "watch", "SG513", "each step follows the sum of all gradients",
    ),
    Fault(
        "003", "weights are multiplied by 0.99 after the step, in the belief that this clips gradients",
        lambda: watched(shrink), "watch", "SG514", "it is weight decay of 1 % a step",
    ),
    Fault(
        "003", "the output is unpacked into two names",
        lambda: raised(lambda: [output for output, _ in [nn.Linear(10, 1)(torch.zeros(3, 10))]]),
        "Python", "ValueError", "it says so, unless there are two rows: then each name gets one",
    ),
    Fault(
        "003", "the labels are fed to the network", lambda: raised(lambda: nn.Linear(10, 1)(torch.zeros(3, 1))),
        "Python", "RuntimeError", "shapes do not fit",
    ),
    Fault(
        "003", "the class, not the network, is asked for its parameters",
        lambda: raised(lambda: nn.Linear.parameters()), "Python", "TypeError", "it says so",
    ),
    Fault(
        "003", "the network is scored against its own inputs, and is a fresh one",
        lambda: watched(score_against_inputs), "nothing", "", "what a score means stands nowhere in the program",
    ),
    Fault(
        "004", "a softmax in front of a loss that applies one",
        lambda: keras_network(nn.Softmax(1), learnable=True),
        "check", "SG601", "gradients shrink, the loss has a floor",
    ),
    Fault(
        "004", "labels are random",
        lambda: keras_network(nn.Identity(), learnable=False), "nothing", "",
        "a batch does not tell noise from a rule that is hard to find; held-out accuracy at chance is the only sign",
    ),
    Fault(
        "004", "class numbers are reduced by argmax over an axis they do not have",
        lambda: raised(lambda: torch.zeros(3).numpy().argmax(axis=1)), "Python", "AxisError", "it says so",
    ),
)  # fmt: skip


def table() -> str:
    """Return the faults as a Markdown table."""
    rows = (f"| {f.article} | {f.what} | {f'{f.caught_by} {f.code}'.strip()} | {f.why} |\n" for f in FAULTS)
    return "| article | fault | caught by | why |\n|---|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    print(table())
    for fault in FAULTS:
        print(f"{fault.article}: {fault.what}: found {', '.join(sorted(fault.program())) or 'nothing'}")
