"""Train plain networks of 100 to 10,000 layers, and recurrent ones over long delays, beside tuned baselines.

    python benchmarks/depth.py --depth 100|1000|10000 [--activations tanh relu] [--seeds 3] [--steps N]
    python benchmarks/depth.py --depth recurrent [--delays 200 1000] [--seeds 3] [--steps N]

Plain networks on MNIST: Linear layers of 64 units and one activation, no shortcuts, no normalization. *Isometric* is
``initialization(method="isometric")``, ``centered_updates`` and a cosine schedule. Baselines are orthogonal or He
weights with momentum or Adam; the pair and its learning rate are those that reach the lowest loss in short trainings on
training batches. The isometric rate is found likewise on a network of 100 layers, for its steps are relative to depth.

Recurrent networks of 64 units see one digit (scikit-learn's, 8 x 8) at the first time step and nothing at all for as
many steps as the delay, then name it. Beside the isometric tanh RNN: the same with PyTorch's weights, and an LSTM with
chrono biases and clipping at norm 1, both with Adam.

Test scores take part in no choice. Runs are appended to ``--out`` as JSON lines, and those found there are not made
again. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean

import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.remedies import compose, make
from steadygrad.training import Training, TrainingSetup, evaluate, search_learning_rate, seeded, split
from steadygrad.training.datasets import load

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardsigmoid": nn.Hardsigmoid,
}
RECURRENT = {
    "rnn isometric": (make("initialization", method="isometric"), make("centered_updates", lr=0.3)),
    "rnn default": (make("optimizer", name="adam", lr=1e-3),),
    "lstm chrono": (
        make("recurrent"),
        make("initialization", method="chrono"),
        make("optimizer", name="adam", lr=1e-3),
        make("clip_by_global_norm", max_norm=1.0),
    ),
}
WIDTH, BATCH, PROXY = 64, 128, 100
STEPS = {100: 300, 1000: 80, 10000: 40}
SEARCH = {100: (6, 40), 1000: (5, 12), 10000: (3, 5)}  # rates at most, and steps of each
RECURRENT_STEPS, RECURRENT_SEARCH, RECURRENT_BAR = 200, (5, 40), 0.90
BARS = {100: 0.93, 1000: 0.85, 10000: 0.70}
BARRED = {100: tuple(ACTIVATIONS), 1000: ("tanh", "relu", "sigmoid"), 10000: ("tanh", "relu")}
BASELINES = [(init, name) for init in ("orthogonal", "he") for name in ("momentum", "adam")]
START = {"momentum": 1e-2, "adam": 1e-4, "isometric": 0.3}  # where the searches start


def plain(depth: int, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in range(depth - 1):
        layers += [nn.Linear(WIDTH if layer else 784, WIDTH), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def treated(setup: TrainingSetup, method: str, lr: float | None) -> TrainingSetup:
    """Return the set-up with a method's weights, optimizer and schedule; its usual learning rate for None."""
    if method == "isometric":
        first, then = make("initialization", method="isometric"), make("centered_updates", lr=lr or START[method])
    else:
        init, name = method.split("+")
        first, then = make("initialization", method=init), make("optimizer", name=name, lr=lr or START[name])
    return compose(first, then, make("schedule", warmup=0.1))(setup)


class Recall(nn.Module):
    """Names what it has seen at the first time step, after a delay without any input."""

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.delay = delay
        self.rnn, self.head = nn.RNN(64, WIDTH, batch_first=True), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(F.pad(x.unsqueeze(1), (0, 0, 0, self.delay)))[0][:, -1])


def rate(setup: TrainingSetup, layers: int, activation: str, method: str) -> dict[str, float]:
    """Return the best learning rate and the training loss it reached, from short trainings of seed 0."""
    rates, steps = SEARCH[layers]
    with seeded(0):
        short = treated(setup.replace(model=plain(layers, activation), steps=steps), method, None)
    return searched(short, rates)


def searched(short: TrainingSetup, rates: int) -> dict[str, float]:
    search = search_learning_rate(short, short.steps, seed=0, most=rates)
    return {"lr": search.lr, "loss": min(search.loss, 1e9)}  # JSON has no infinity


class Runs:
    """Records of runs, kept in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def get(self, key: dict[str, object], make_record) -> dict:
        for record in self.records:
            if key.items() <= record.items():
                return record
        started = time.perf_counter()
        record = {**key, **make_record(), "seconds": round(time.perf_counter() - started, 1)}
        with self.path.open("a") as file:
            print(json.dumps(record), file=file)
        self.records.append(record)
        print(record, file=sys.stderr, flush=True)
        return record


def run(setup: TrainingSetup, test: tuple, depth: int, activation: str, method: str, lr: float, seed: int) -> dict:
    with seeded(seed):
        ready = treated(setup.replace(model=plain(depth, activation)), method, lr)
    return scored(ready, test, seed)


def scored(ready: TrainingSetup, test: tuple, seed: int) -> dict:
    training = Training(ready, seed)
    training.advance(ready.steps)
    larger = ready.replace(batch_size=1000)
    scores = {
        name: 0.0 if training.diverged else round(evaluate(larger, training.model, data)[1], 4)
        for name, data in (("validation", ready.validation), ("test", test))
    }
    return {**scores, "steps_made": len(training.losses)}


def recall(setup: TrainingSetup, delay: int, method: str, seed: int, lr: float | None = None) -> TrainingSetup:
    remedies = [*RECURRENT[method], make("schedule", warmup=0.1)]
    if lr is not None:
        remedies.append(make("learning_rate", lr=lr))
    with seeded(seed):
        return compose(*remedies)(setup.replace(model=Recall(delay)))


def recurrent(runs: Runs, delays: list[int], seeds: int, steps: int) -> bool:
    """Print the table of recurrent networks; return whether the bar is missed."""
    data = load("digits")
    train, validation = split(data.train, 1 / 6, seed=0)
    setup = TrainingSetup(nn.Identity(), F.cross_entropy, train, None, validation, batch_size=64, steps=steps)
    rates, search_steps = RECURRENT_SEARCH
    missed = False
    print("| delay | method | learning rate | validation | test | mean test |\n|---|---|---|---|---|---|")
    for delay in delays:
        for method in RECURRENT:
            key = {"depth": f"recurrent {delay}", "method": method}
            short = partial(recall, setup.replace(steps=search_steps), delay, method, 0)
            lr = runs.get({**key, "what": "rate"}, lambda short=short: searched(short(), rates))["lr"]
            ready = partial(recall, setup, delay, method, lr=lr)
            done = [
                runs.get(
                    {**key, "what": "run", "steps": steps, "lr": lr, "seed": seed},
                    lambda ready=ready, seed=seed: scored(ready(seed=seed), data.test, seed),
                )
                for seed in range(seeds)
            ]
            print_row(f"{delay} | {method}", lr, done)
            missed |= delay == 200 and method == "rnn isometric" and min(r["test"] for r in done) < RECURRENT_BAR
    return missed


def print_row(name: str, lr: float, done: list[dict]) -> None:
    columns = [" ".join(f"{record[part]:.3f}" for record in done) for part in ("validation", "test")]
    score = mean(record["test"] for record in done)
    print(f"| {name} | {lr:g} | {columns[0]} | {columns[1]} | {score:.3f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", choices=["100", "1000", "10000", "recurrent"], required=True)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS)
    parser.add_argument("--methods", nargs="+", choices=("isometric", "baseline"), default=["isometric", "baseline"])
    parser.add_argument("--delays", type=int, nargs="+", default=[200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--data-dir", help="folder with mnist/*.gz; else STEADYGRAD_DATA or a download")
    parser.add_argument("--out", type=Path, default=Path("depth.jsonl"))
    options = parser.parse_args()
    if options.depth == "recurrent":
        return int(recurrent(Runs(options.out), options.delays, options.seeds, options.steps or RECURRENT_STEPS))
    depth = int(options.depth)
    steps = options.steps or STEPS[depth]
    activations = options.activations or (list(ACTIVATIONS) if depth < 10000 else ["tanh", "relu"])
    data = load("mnist", options.data_dir)
    train, validation = split(data.train, 1 / 12, seed=0)
    setup = TrainingSetup(nn.Identity(), F.cross_entropy, train, None, validation, batch_size=BATCH, steps=steps)
    runs, missed = Runs(options.out), False
    print("| activation | method | learning rate | validation | test | mean test |\n|---|---|---|---|---|---|")
    for method in options.methods:
        for activation in activations:
            layers = min(depth, PROXY) if method == "isometric" else depth
            names = ["isometric"] if method == "isometric" else ["+".join(pair) for pair in BASELINES]
            rates = {
                name: runs.get(
                    {"what": "rate", "depth": layers, "activation": activation, "method": name},
                    partial(rate, setup, layers, activation, name),
                )
                for name in names
            }
            best = min(names, key=lambda name: rates[name]["loss"])
            lr = rates[best]["lr"]
            key = {"what": "run", "depth": depth, "activation": activation, "method": best, "steps": steps, "lr": lr}
            done = [
                runs.get(
                    {**key, "seed": seed},
                    partial(run, setup, data.test, depth, activation, best, lr, seed),
                )
                for seed in range(options.seeds)
            ]
            print_row(f"{activation} | {best}", lr, done)
            barred = method == "isometric" and activation in BARRED[depth]
            missed |= barred and min(record["test"] for record in done) < BARS[depth]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
