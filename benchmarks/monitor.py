"""What watching a training costs, as a ratio of step times; exit code 1 over the budget.

One training goes on in pieces of sixteen steps, by turns unwatched, watched in each way, and unwatched once more as the
null control, in random order; a piece of each is a round. One training and not several, because two trainings of the
same network differ by several per cent by where their tensors happen to lie; short pieces, because a machine's pace
drifts; sixteen steps, because looks in a row are worked on eight at a time. The default schedule, as it is from step
1,000 on, is put together from a piece without a look and one with a look that all rules judge. The figure is the median
over rounds of watched to unwatched time, less what the null control shows, with a bootstrap interval. Processor time of
one thread. Beside it, for the same networks, what others cost at every step.

A process has its own place for every tensor and every piece of code, and so a ratio of its own. With ``--processes``
the training is made in several, one after the other, which share the time; the figure is the mean of their medians, and
the bootstrap draws processes as well as rounds.

    python benchmarks/monitor.py --models mlp --seconds 120
    python benchmarks/monitor.py --models mlp --watch default --seconds 600 --processes 10
    python benchmarks/monitor.py --models gpt --watch "every step" --results costs.json

With ``--keep-memory`` the C library is told to keep the memory that is freed. Otherwise it may give it back, and to
get it anew takes page faults, watched or not: steps are longer then, and ratios less sure.

With ``--results`` figures are kept in a file, beside those of other calls, and shown together as a table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import math
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.monitor import Monitor
from steadygrad.monitor.monitor import HELD, LAST_GAP
from steadygrad.signals.kernel import squares_kernel

DRAWS, SEED = 2000, 0
PIECE = 2 * (HELD + 1)  # steps timed: whole groups of the looks that are worked on together
WARM_UP = 12  # steps before that are not timed: after ten looks in a row the monitor has come to rest
FEWEST = 10  # rounds
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names of what ``mallopt`` sets
PACKAGES = {"wandb.watch": "wandb", "TensorBoard": "tensorboard"}
# Pieces of the default schedule: without a look, and with one that all rules judge.
IDLE, LOOK = "between looks", "one look"
EVERY = {IDLE: 10**9, LOOK: PIECE, "every step": 1}
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

    def run(self, steps: int, settle: Callable[[], object] | None = None) -> float:
        """Return the seconds that some steps take, and what ``settle`` does with what they left behind."""
        start = time.thread_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x), self.y).backward()
            self.after_backward()
            self.optimizer.step()
        if settle is not None:
            settle()
        return time.thread_time() - start


Watch = Callable[[], AbstractContextManager[Callable[[], object] | None]]


def with_monitor(training: Training, every: int) -> Watch:
    monitor = Monitor(training.model, training.optimizer, every=every)

    @contextmanager
    def watch() -> Iterator[Callable[[], object]]:
        before = len(monitor.history)
        if every == PIECE:  # the look that is timed
            monitor._next_judgement = monitor.steps + WARM_UP
        with monitor:
            yield lambda: monitor.history  # looks that wait for others to be worked on
        assert len(monitor.history) - before == 1 + (PIECE + WARM_UP - 1) // every, "the monitor did not look"

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
WATCHES = ["default", "every step", *PEERS]


@dataclass(frozen=True)
class Cost:
    """A ratio of step times and its 95 % bootstrap interval."""

    network: str
    watched_by: str
    ratio: float
    low: float
    high: float
    rounds: int
    step_ms: float

    @property
    def over(self) -> bool:
        """Whether the interval reaches beyond the budget."""
        return self.high > BUDGETS.get(self.watched_by, {}).get(self.network, math.inf)


def rounds(name: str, watchers: dict[str, Callable[[Training], Watch]], seconds: float) -> np.ndarray:
    """Return the seconds of each piece of one training: rounds by unwatched, each way to watch, unwatched."""
    training = Training(name)
    turns: list[Watch] = [nullcontext, *(make(training) for make in watchers.values()), nullcontext]
    order, rows = random.Random(SEED), []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rows) <= FEWEST:
        row = np.zeros(len(turns))
        for place in order.sample(range(len(turns)), len(turns)):
            with turns[place]() as settle:
                training.run(WARM_UP, settle)
                row[place] = training.run(PIECE, settle)
        rows.append(row)
    return np.array(rows[1:])  # the first round warms up


def measure(name: str, watch: list[str], options: argparse.Namespace) -> list[Cost]:
    """Measure what each way to watch one network costs, all in one training of each process."""
    watchers = {
        turn: PEERS.get(turn) or partial(with_monitor, every=EVERY[turn])
        for watcher in watch
        for turn in ((IDLE, LOOK) if watcher == "default" else (watcher,))
    }
    share = options.seconds / options.processes
    if options.processes == 1:
        taken = [rounds(name, watchers, share)]
    else:
        with ProcessPoolExecutor(1, get_context("spawn"), prepare, (options,), max_tasks_per_child=1) as pool:
            tasks = [pool.submit(rounds, name, watchers, share) for _ in range(options.processes)]
            taken = [task.result() for task in tasks]
    ways = list(watchers)
    if LOOK in ways:
        idle, look = ways.index(IDLE) + 1, ways.index(LOOK) + 1
        ways[look - 1] = "default"
        for times in taken:
            times[:, look] = times[:, idle] + (times[:, look] - times[:, idle]) * PIECE / LAST_GAP
    return costs_of(name, ways, taken)


def costs_of(name: str, ways: list[str], taken: list[np.ndarray]) -> list[Cost]:
    """Turn the times of each process into ratios to the unwatched: the mean of the processes' medians over rounds."""
    generator = np.random.default_rng(SEED)
    medians = []  # a process: as measured and of every draw, by ways to watch
    for times in taken:
        count = len(times)
        draws = np.vstack([np.arange(count), generator.integers(0, count, (DRAWS, count))])
        watched = times[:, 1:-1] / times[:, [0, -1]].mean(axis=1, keepdims=True)
        null = times[:, -1:] / times[:, :1]
        # The control's drift from 1 belongs half to either unwatched turn.
        medians.append(np.median(watched[draws], axis=1) - (np.median(null[draws], axis=1) - 1.0) / 2)
    ratios = np.mean([each[0] for each in medians], axis=0)
    chosen = generator.integers(0, len(taken), (DRAWS, len(taken)))  # of one process: that one
    drawn = np.array(medians)[chosen, np.arange(1, DRAWS + 1)[:, None]].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    step_ms = 1e3 * float(np.mean([np.median(times[:, [0, -1]]) for times in taken])) / PIECE
    number = sum(map(len, taken))
    figures = zip(ways, ratios.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Cost(name, way, *figure, number, step_ms) for way, *figure in figures]


def prepare(options: argparse.Namespace) -> None:
    """Set up a process as asked."""
    if options.without_numba:
        sys.modules["numba"] = None  # type: ignore[assignment]
    if options.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(1)
    logging.getLogger("steadygrad").disabled = True


def keep_freed_memory() -> None:
    """Let the C library keep it, where it can be told so (glibc)."""
    with suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, 2**30)
        library.mallopt(MMAP_THRESHOLD, 2**25)


def installed(watchers: Iterable[str]) -> Iterator[str]:
    """Leave out peers that are not installed."""
    for watcher in watchers:
        if watcher in PACKAGES and find_spec(PACKAGES[watcher]) is None:
            print(f"{watcher}: {PACKAGES[watcher]} is not installed")
        else:
            yield watcher


def merged(path: Path, costs: list[Cost]) -> list[Cost]:
    """Put figures into the file beside those of other networks and ways, and return all of them."""
    held = [Cost(**row) for row in json.loads(path.read_text())] if path.exists() else []
    fresh = {(cost.network, cost.watched_by) for cost in costs}
    together = [cost for cost in held if (cost.network, cost.watched_by) not in fresh] + costs
    path.write_text(json.dumps([asdict(cost) for cost in together], indent=1) + "\n")
    return together


def table(costs: list[Cost]) -> str:
    """Return a Markdown table: a line a way to watch, a column a network; ``!`` marks what is over its budget."""
    networks = [name for name in NETWORKS if any(cost.network == name for cost in costs)]
    cells = {
        (cost.watched_by, cost.network): f"{cost.ratio:.3f} ({cost.low:.3f} to {cost.high:.3f}){' !' * cost.over}"
        for cost in costs
    }
    lines = [["watched by", *networks], ["---"] * (len(networks) + 1)]
    lines += [
        [way, *(cells.get((way, name), "-") for name in networks)]
        for way in dict.fromkeys(cost.watched_by for cost in costs)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--watch", nargs="*", default=WATCHES, choices=WATCHES)
    parser.add_argument("--seconds", type=float, default=120.0, help="time for a network")
    parser.add_argument("--results", type=Path, help="JSON file that figures are merged into")
    parser.add_argument("--without-numba", action="store_true", help="as if it were not installed: by torch alone")
    parser.add_argument("--keep-memory", action="store_true", help="without page faults of memory given back (glibc)")
    parser.add_argument("--processes", type=int, default=1, help="that share the time, one after the other")
    options = parser.parse_args()
    if options.processes < 1:
        parser.error("--processes: expected at least 1")
    prepare(options)
    watch = list(installed(options.watch))
    kernels = "with numba" if squares_kernel() else "without numba"
    print(f"torch {torch.__version__} {kernels}, {platform.machine()}, one thread, pieces of {PIECE} steps")
    print(f"{'network':<10}{'watched by':<20}{'ratio':>7}{'95 % interval':>18}{'rounds':>8}{'step':>10}")
    failed, costs = False, []
    for name in options.models:
        for cost in measure(name, watch, options):
            costs.append(cost)
            failed |= cost.over
            interval = f"{cost.low:.3f} to {cost.high:.3f}"
            print(
                f"{name:<10}{cost.watched_by:<20}{cost.ratio:>7.3f}{interval:>18}{cost.rounds:>8}"
                f"{cost.step_ms:>7.1f} ms{'  over' * cost.over}",
                flush=True,
            )
        if options.results:
            print(table(merged(options.results, costs)), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
