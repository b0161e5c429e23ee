"""What watching a training costs, as a ratio of step times; exit code 1 over the budget.

One training goes on for many blocks of steps, by turns unwatched, watched, and unwatched once more as the null control,
in random order. One training and not three, because two trainings of the same network differ by several per cent by
where their tensors happen to lie. A block holds five looks of the default schedule and one judgement by all rules. The
figure is the median over rounds of watched to unwatched time, less what the null control shows, with a bootstrap
interval. Processor time of one thread. Beside it, for the same networks, what others cost at every step.

    python benchmarks/monitor.py
    python benchmarks/monitor.py --rounds 8 --only mlp cnn --watch default
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.monitor import Monitor
from steadygrad.monitor.one_pass import one_pass

DRAWS, SEED = 2000, 0
BLOCK, WARM_UP = 50, 2  # steps
EVERY = {"default": 10, "every step": 1}
BUDGETS = {
    "default": dict.fromkeys(("mlp", "deep mlp", "cnn", "gpt", "lstm"), 1.02),
    "every step": {"mlp": 1.25, "deep mlp": 1.25, "cnn": 1.10, "gpt": 1.10, "lstm": 1.10},
}


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

    def __init__(self, name: str) -> None:
        torch.manual_seed(SEED)
        make, data = NETWORKS[name]
        self.model, (self.x, self.y) = make(), data()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.after_backward: Callable[[], None] = lambda: None

    def run(self, steps: int) -> float:
        """Return the seconds that some steps take."""
        start = time.thread_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x), self.y).backward()
            self.after_backward()
            self.optimizer.step()
        return time.thread_time() - start


Watch = Callable[[], AbstractContextManager[object]]


def with_monitor(training: Training, every: int) -> Watch:
    monitor = Monitor(training.model, training.optimizer, every=every, on_alarm=lambda finding: None)

    @contextmanager
    def watch() -> Iterator[None]:
        before = len(monitor.history)
        with monitor:
            yield
        assert len(monitor.history) - before >= (BLOCK + WARM_UP) // every, "the monitor did not look"

    return watch


def with_anomaly_mode(training: Training) -> Watch:
    return lambda: torch.autograd.detect_anomaly(check_nan=True)


def with_tensorboard(training: Training) -> Watch:
    from torch.utils.tensorboard import SummaryWriter

    writer, steps = SummaryWriter(tempfile.mkdtemp()), iter(range(10**9))

    def histograms() -> None:
        step = next(steps)
        for name, parameter in training.model.named_parameters():
            writer.add_histogram(name, parameter, step)
            writer.add_histogram(f"{name}.grad", parameter.grad, step)

    @contextmanager
    def watch() -> Iterator[None]:
        training.after_backward = histograms
        yield
        training.after_backward = lambda: None

    return watch


def with_wandb(training: Training) -> Watch:
    import wandb

    run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True))

    @contextmanager
    def watch() -> Iterator[None]:
        run.watch(training.model, log="all", log_freq=1)
        training.after_backward = lambda: run.log({"loss": 0.0})
        yield
        training.after_backward = lambda: None
        run.unwatch(training.model)

    return watch


PEERS = {"wandb.watch": with_wandb, "TensorBoard": with_tensorboard, "detect_anomaly": with_anomaly_mode}


def overhead(name: str, watcher: Callable[[Training], Watch], rounds: int) -> tuple[float, float, float]:
    """Return the ratio and its 95 % bootstrap interval."""
    training = Training(name)
    turns: list[Watch] = [nullcontext, watcher(training), nullcontext]
    order = random.Random(SEED)
    times = np.zeros((rounds + 1, 3))
    for row in times:
        for place in order.sample(range(3), 3):
            with turns[place]():
                training.run(WARM_UP)
                row[place] = training.run(BLOCK)
    times = times[1:]  # the first round warms up
    draws = np.random.default_rng(SEED).integers(0, rounds, (DRAWS, rounds))
    watched, null = 2 * times[:, 1] / (times[:, 0] + times[:, 2]), times[:, 2] / times[:, 0]

    def figure(rows: np.ndarray) -> float:
        # The control's drift from 1 belongs half to either unwatched block.
        return float(np.median(watched[rows]) - (np.median(null[rows]) - 1.0) / 2)

    low, high = np.percentile([figure(rows) for rows in draws], [2.5, 97.5])
    return figure(np.arange(rounds)), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--watch", nargs="*", default=[*EVERY, *PEERS], choices=[*EVERY, *PEERS])
    parser.add_argument("--without-numba", action="store_true", help="measure the path of pure torch")
    options = parser.parse_args()
    if options.without_numba:
        sys.modules["numba"] = None  # type: ignore[assignment]
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, {options.rounds} rounds of {BLOCK} steps")
    print("pure torch" if one_pass() is None else "with numba")
    print(f"{'watched by':<16}{'network':<10}{'ratio':>8}{'95 % interval':>18}{'budget':>8}")
    failed = False
    for watcher in options.watch:
        make = PEERS.get(watcher) or partial(with_monitor, every=EVERY[watcher])
        for name in options.only:
            try:
                ratio, low, high = overhead(name, make, options.rounds)
            except ImportError as error:
                print(f"{watcher:<16}not installed: {error}")
                break
            budget = BUDGETS.get(watcher, {}).get(name, float("inf"))
            failed |= high > budget
            interval, mark = f"{low:.3f} to {high:.3f}", "  over" if high > budget else ""
            print(f"{watcher:<16}{name:<10}{ratio:>8.3f}{interval:>18}{budget:>8.2f}{mark}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
