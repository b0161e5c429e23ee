"""Steps a second of one thread: the lab's ways to train a grid against three loops that people write.

    python benchmarks/sweep.py [--batches 10 100 1000] [--repeats 5] [--inputs mnist dense] [--seconds 0.3]

The network is 784-128-64-10, the figure the mean over the article's five optimizers, in CPU seconds of one thread,
which other work on the machine disturbs least. All ways take turns, A B C A B C, and the medians count. The loops:
``tensors``, data in memory and torch.optim as it comes; ``loader``, a DataLoader over a TensorDataset; ``per
sample``, a data set that turns each image of bytes into a normalized tensor when it is asked for, as torchvision's
ToTensor and Normalize do. ``stacked`` trains 45 runs, nine an optimizer, at once by vmap; ``compiled`` is the numba
kernel. The floor is the time of a step's matrix products alone, dense, in torch.

Two kinds of inputs: ``mnist``, the article's, of which four in five numbers are zero, which the compiled kernel leaves
out; and ``dense``, uniform random numbers. The bars are for the faster of ours on each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steadygrad.lab.article import OPTIMIZERS
from steadygrad.lab.compiled import Compiled
from steadygrad.lab.stack import Case, Stack
from steadygrad.lab.vmapped import Vmapped
from steadygrad.training import TrainingSetup
from steadygrad.training.datasets import load

SIZES = (784, 128, 64, 10)
ROWS = 5000
BARS = {10: (2.5, 4.5), 100: (1.5, 2.0), 1000: (1.15, 1.3)}  # times the loop on tensors: must, goal
Steps = Callable[[int], None]


class PerSample(Dataset):
    """Images of bytes, made tensors one at a time."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.images, self.labels = (x * 255).to(torch.uint8).view(-1, 28, 28).numpy(), y

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(self.images[row]).unsqueeze(0).to(torch.get_default_dtype()).div(255)
        return image.sub_(0.1307).div_(0.3081).flatten(), self.labels[row]


def perceptron() -> nn.Sequential:
    a, b, c, d = SIZES
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def case(name: str, x: Tensor, y: Tensor, batch: int, lr: float = 0.01) -> Case:
    kind = OPTIMIZERS[name]
    make = lambda parameters: kind(parameters, lr=lr, weight_decay=0.01)  # noqa: E731
    return Case(TrainingSetup(perceptron(), F.cross_entropy, (x, y), make, batch_size=batch), seed=0)


def loop(name: str, batches: Iterator[tuple[Tensor, Tensor]]) -> Steps:
    model = perceptron()
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.01, weight_decay=0.01)

    def run(steps: int) -> None:
        for _ in range(steps):
            x, y = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def tensors(x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for rows in torch.randperm(len(x)).split(batch):
            yield x[rows], y[rows]


def loader(data: Dataset, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in count():
        yield from DataLoader(data, batch, shuffle=True)


def advancing(stack: Stack) -> Steps:
    def run(steps: int) -> None:
        stack.advance(steps)

    return run


def ways(x: Tensor, y: Tensor, batch: int) -> dict[str, list[tuple[Steps, int]]]:
    """Return what to time: for each way, functions that make steps, and how many runs each steps at once."""
    stacked = Vmapped([case(name, x, y, batch, lr / 1e3) for name in OPTIMIZERS for lr in range(1, 10)])
    return {
        "tensors": [(loop(name, tensors(x, y, batch)), 1) for name in OPTIMIZERS],
        "loader": [(loop(name, loader(TensorDataset(x, y), batch)), 1) for name in OPTIMIZERS],
        "per sample": [(loop(name, loader(PerSample(x, y), batch)), 1) for name in OPTIMIZERS],
        "stacked": [(advancing(stacked), 45)],
        "compiled": [(advancing(compiled), 1) for n in OPTIMIZERS if (compiled := Compiled.of(case(n, x, y, batch)))],
        "floor": [(products(batch), 1)],
    }


def products(batch: int) -> Steps:
    """Return the matrix products of a step: forward, weight gradients, and errors of all layers but the first."""
    layers = [(torch.rand(batch, i), torch.rand(i, o), torch.rand(batch, o)) for i, o in pairwise(SIZES)]

    def run(steps: int) -> None:
        for _ in range(steps):
            for place, (x, w, d) in enumerate(layers):
                x @ w
                x.t() @ d
                if place:
                    d @ w.t()

    return run


def seconds_a_step(run: Steps, runs: int, seconds: float) -> float:
    """Return CPU seconds of one step of one run, over about ``seconds``."""
    steps = 1
    while True:
        start = time.process_time()
        run(steps)
        spent = time.process_time() - start
        if spent > seconds / 2:
            return spent / steps / runs
        steps = min(8 * steps, max(steps + 1, int(steps * seconds / max(spent, 1e-6))))


def measure(kind: str, x: Tensor, y: Tensor, batch: int, repeats: int, seconds: float) -> None:
    every = ways(x, y, batch)
    times: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(repeats + 1):  # the first warms up, and compiles
        for name, functions in every.items():
            spent = statistics.fmean(seconds_a_step(run, runs, seconds / len(functions)) for run, runs in functions)
            if turn:
                times[name].append(spent)
    speed = {name: 1 / statistics.median(values) for name, values in times.items()}
    print(f"\n{kind} inputs, batch {batch}")
    for name, value in speed.items():
        spread = f"{1 / max(times[name]):,.0f} to {1 / min(times[name]):,.0f}"
        print(f"  {name:11} {value:8,.0f} steps/s ({spread})  {value / speed['tensors']:5.2f} x tensors")
    best = max(speed["stacked"], speed["compiled"])
    must, goal = BARS[batch]
    ratio = best / speed["tensors"]
    state = "goal reached" if ratio >= goal else "held" if ratio >= must else "MISSED"
    print(f"  best {ratio:.2f} x tensors (must {must}, goal {goal}): {state}")
    print(f"  best {best / speed['floor']:.0%} of the speed of the floor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--inputs", nargs="+", default=["mnist", "dense"], choices=["mnist", "dense"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU seconds a way and turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for kind in options.inputs:
        if kind == "mnist":
            x, y = (column[:ROWS] for column in load("mnist").train)
        else:
            x, y = torch.rand(ROWS, SIZES[0]), torch.randint(SIZES[-1], (ROWS,))
        for batch in options.batches:
            measure(kind, x, y, batch, options.repeats, options.seconds)


if __name__ == "__main__":
    main()
