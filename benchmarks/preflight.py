"""What a diagnosis costs, in forward and backward passes of the same network; exit code 1 over the budget.

Both are measured in turns in one process on one thread, because machines drift, and in seconds of that thread, so
that other programs count less. The cost of a diagnosis is that of everything: saving and restoring the network, one
pass, all statistics, one optimizer step, all rules.

    python benchmarks/preflight.py
"""

from __future__ import annotations

import datetime
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.diagnosis import diagnose
from steadygrad.training import TrainingSetup, first_batch, run_batch

BUDGET = 3.0  # forward and backward passes
ROUNDS = 25


class LastStep(nn.Module):
    """Classify a sequence by a recurrent network's last output."""

    def __init__(self, size: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class LanguageModel(nn.Module):
    """Predict the next token with a small transformer."""

    def __init__(self, tokens: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        block = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=4 * width, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(x))).transpose(1, 2)


def mlp(width: int, depth: int, inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(inputs if index == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


def setups() -> dict[str, tuple[TrainingSetup, bool]]:
    """Return the set-ups by name, each with whether the budget binds it."""
    torch.manual_seed(0)
    labels = torch.randint(10, (128,))
    tokens = torch.randint(256, (16, 64))
    made: dict[str, tuple[nn.Module, Tensor, Tensor, bool]] = {
        "MLP 784-512x4-10, batch 128": (mlp(512, 4, 784), torch.randn(128, 784), labels, True),
        "CNN 3x32x32, 6 convolutions, batch 64": (cnn(), torch.randn(64, 3, 32, 32), labels[:64], True),
        "transformer, 4 layers of 128, 64 tokens, batch 16": (
            LanguageModel(256, 128, 4),
            tokens,
            tokens.roll(-1, 1),
            True,
        ),
        "LSTM, 2 layers of 256, 50 steps, batch 32": (
            LastStep(64, 256, 10),
            torch.randn(32, 50, 64),
            labels[:32],
            True,
        ),
        "MLP 64-64x30-10, batch 64": (mlp(64, 30, 64), torch.randn(64, 64), labels[:64], False),
    }
    return {
        name: (
            TrainingSetup(model, F.cross_entropy, (x, y), optimizer=torch.optim.AdamW, batch_size=len(x)),
            binding,
        )
        for name, (model, x, y, binding) in made.items()
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(setup: TrainingSetup, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of plain passes and of diagnoses, one of each a round."""
    batch = first_batch(setup)

    def plain() -> None:
        setup.model.zero_grad()
        run_batch(setup, setup.model, batch).loss.backward()

    passes, diagnoses = zip(*((seconds(plain), seconds(lambda: diagnose(setup))) for _ in range(rounds)), strict=True)
    return list(passes), list(diagnoses)


def milliseconds(times: list[float]) -> str:
    low, _, high = quantiles(times, n=4)
    return f"{median(times) * 1e3:.1f} ({low * 1e3:.1f} to {high * 1e3:.1f})"


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def main() -> int:
    torch.set_num_threads(1)
    print(f"{processor()}, one thread, torch {torch.__version__}, {datetime.date.today()}; median (quartiles)\n")
    print("| network | forward + backward, ms | diagnosis, ms | ratio | budget |")
    print("|---|---|---|---|---|")
    made = setups()
    for setup, _ in made.values():
        measure(setup, rounds=2)  # the allocator keeps memory only after it has seen the largest tensors come and go
    missed = False
    for name, (setup, binding) in made.items():
        passes, diagnoses = measure(setup, ROUNDS)
        ratio = median(d / p for p, d in zip(passes, diagnoses, strict=True))
        missed |= binding and ratio > BUDGET
        budget = f"{BUDGET}" if binding else "none"
        print(f"| {name} | {milliseconds(passes)} | {milliseconds(diagnoses)} | {ratio:.2f} | {budget} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
