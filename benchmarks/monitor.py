"""What watching a training costs, as a ratio of step times; exit code 1 over the budget.

The same training runs three times side by side: unwatched, watched, and unwatched once more as the null control. Blocks
of steps take turns in random order, because machines drift. The figure is the median ratio of watched to unwatched
blocks, less what the null control shows, with a bootstrap interval. Processor time of one thread.

    python benchmarks/monitor.py
    python benchmarks/monitor.py --rounds 20 --only mlp cnn
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.monitor import Monitor
from steadygrad.monitor.listeners import listen, unlisten

DEFAULT, EVERY_STEP = 10, 1
BUDGETS = {DEFAULT: dict.fromkeys(("mlp", "deep mlp", "cnn", "gpt", "lstm"), 1.02)}
BUDGETS[EVERY_STEP] = {"mlp": 1.25, "deep mlp": 1.25, "cnn": 1.10, "gpt": 1.10, "lstm": 1.10}
DRAWS, SEED = 2000, 0


class GPT(nn.Module):
    """A small transformer for next tokens."""

    def __init__(self, tokens: int = 256, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(x))).transpose(1, 2)


class LSTM(nn.Module):
    """Classify a sequence by a recurrent network's last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 128, num_layers=2, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def mlp(depth: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(784 if index == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers[:6], nn.MaxPool2d(2), *layers[6:], nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 10))


def classes(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(shape), torch.randint(0, 10, shape[:1])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "mlp": (lambda: mlp(4, 512), lambda: classes(128, 784)),
    "deep mlp": (lambda: mlp(29, 256), lambda: classes(128, 784)),
    "cnn": (cnn, lambda: classes(64, 1, 28, 28)),
    "gpt": (GPT, lambda: (torch.randint(0, 256, (8, 64)), torch.randint(0, 256, (8, 64)))),
    "lstm": (LSTM, lambda: classes(32, 32, 32)),
}


class Training:
    """One training that makes a block of steps at a time."""

    def __init__(self, name: str, every: int | None) -> None:
        torch.manual_seed(SEED)
        make, data = NETWORKS[name]
        self.model, (self.x, self.y) = make(), data()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.monitor = Monitor(self.model, self.optimizer, every=every).attach() if every is not None else None
        if self.monitor is not None:
            unlisten(self.monitor)

    def seconds(self, steps: int) -> float:
        if self.monitor is not None:
            listen(self.monitor)  # only while its own training runs: what it hears of is not the others' burden
        start = time.thread_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x), self.y).backward()
            self.optimizer.step()
        spent = time.thread_time() - start
        if self.monitor is not None:
            unlisten(self.monitor)
        return spent


def overhead(name: str, every: int, rounds: int) -> tuple[float, float, float]:
    """Return the ratio and its 95 % bootstrap interval."""
    trainings = [Training(name, None), Training(name, every), Training(name, None)]
    steps = max(every, 2)
    order = random.Random(SEED)
    for training in trainings:
        training.seconds(2 * steps)
    times = np.zeros((rounds, 3))
    for row in times:
        for place in order.sample(range(3), 3):
            row[place] = trainings[place].seconds(steps)
    assert trainings[1].monitor is not None
    assert len(trainings[1].monitor.history) >= rounds, "the monitor did not look"
    trainings[1].monitor.detach()
    draws = np.random.default_rng(SEED).integers(0, rounds, (DRAWS, rounds))
    plain = (times[:, 0] + times[:, 2]) / 2
    watched, null = times[:, 1] / plain, times[:, 2] / times[:, 0]

    def figure(rows: np.ndarray) -> float:
        # The control's drift from 1 belongs half to either unwatched training.
        return float(np.median(watched[rows]) - (np.median(null[rows]) - 1.0) / 2)

    low, high = np.percentile([figure(rows) for rows in draws], [2.5, 97.5])
    return figure(np.arange(rounds)), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, {options.rounds} rounds")
    print(f"{'network':<10}{'every':>6}{'ratio':>8}{'95 % interval':>18}{'budget':>8}")
    failed = False
    for every, budgets in BUDGETS.items():
        for name in options.only:
            ratio, low, high = overhead(name, every, options.rounds)
            failed |= high > budgets[name]
            mark = "" if high <= budgets[name] else "  over"
            print(
                f"{name:<10}{every:>6}{ratio:>8.3f}{f'{low:.3f} to {high:.3f}':>18}{budgets[name]:>8.2f}{mark}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
