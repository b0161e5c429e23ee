"""Calibrate the rules: diagnose a zoo of networks from one batch, train them all, compare.

Networks are drawn at random from a grid (depth, activation, initialization, normalization, residual connections;
convolutions, transformers, recurrent nets) and trained on scikit-learn's digits for 300 steps with SGD and with Adam.
Thresholds were chosen on the networks with an even number at seed 0; those with an odd number are reported.

    python benchmarks/calibration.py --seed 1            # about 7 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import platform
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from torch import Tensor, nn

from steadygrad.diagnosis import RULES, judge
from steadygrad.records import Blueprint, Observation, Severity
from steadygrad.signals import probe
from steadygrad.training import Training, TrainingSetup, evaluate, seeded

STEPS, CHANCE = 300, 0.1
# Shares of the gap between chance and the reference, an MLP of two hidden layers.
TRAINED, FAILED = 0.9, 0.5
GOOD = 0.9  # an accuracy at which no further learning rate is tried
OPTIMIZERS: dict[str, tuple[Callable, ...]] = {
    # The better of two learning rates: a failure is then not the learning rate's.
    "sgd": (partial(torch.optim.SGD, lr=0.1), partial(torch.optim.SGD, lr=0.02)),
    "adam": (partial(torch.optim.Adam, lr=1e-3),),
}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU}
GAINS = {"relu": 2**0.5, "tanh": 5 / 3, "sigmoid": 1.0, "gelu": 1.5, "silu": 1.6}
INITS = ("default", "default", "gain", "gain", "orthogonal", "small", "large")
NORMS = ("none", "none", "batch", "layer")
# How many, depths, activations (for recurrent networks the kind), initializations, normalizations (for recurrent
# networks how an image is cut), share with residual connections.
FAMILIES: dict[str, tuple] = {
    "mlp": (110, (2, 3, 5, 8, 12, 20, 30, 40), tuple(ACTIVATIONS), INITS, NORMS, 0.3),
    "cnn": (36, (3, 5, 8, 12, 20), tuple(ACTIVATIONS), INITS, NORMS, 0.3),
    "transformer": (16, (1, 2, 4, 8, 12), ("relu", "gelu"), INITS, ("pre", "post"), 0),
    "recurrent": (24, (1, 2, 3), ("RNN", "LSTM", "GRU"), ("default", "small", "large"), ("8 rows", "16 halves"), 0),
}


@dataclass(frozen=True)
class Case:
    """One network: its family and the choices that make it."""

    number: int
    family: str
    depth: int
    activation: str
    init: str
    norm: str
    residual: bool

    def __str__(self) -> str:
        extra = " residual" if self.residual else ""
        return f"{self.family} {self.depth} {self.activation} {self.init} {self.norm}{extra}"


@dataclass(frozen=True)
class Row:
    """One case with one optimizer: what was measured before, and the accuracy after training."""

    case: Case
    optimizer: str
    blueprint: Blueprint
    observation: Observation
    score: float


class Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Transformer(nn.Module):
    def __init__(self, layers: int, activation: str, pre: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 10)
        self.position = nn.Parameter(torch.randn(8, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, activation, batch_first=True, norm_first=pre)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.view(-1, 8, 8)) + self.position).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: str, layers: int, rows: int) -> None:
        super().__init__()
        self.shape = (-1, rows, 64 // rows)
        self.cell = getattr(nn, kind)(64 // rows, 32, layers, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(self.shape))[0][:, -1])


def draw_cases() -> list[Case]:
    """Return the same zoo every time, no two networks alike."""
    rng, cases = random.Random(0), dict[str, Case]()
    for family, (count, depths, activations, inits, norms, residual) in FAMILIES.items():
        goal = len(cases) + count
        while len(cases) < goal:
            case = Case(
                number=len(cases),
                family=family,
                depth=rng.choice(depths),
                activation=rng.choice(activations),
                init=rng.choice(inits),
                norm=rng.choice(norms),
                residual=rng.random() < residual,
            )
            cases.setdefault(str(case), case)
    return list(cases.values())


def build(case: Case) -> nn.Module:
    if case.family == "transformer":
        model: nn.Module = Transformer(case.depth, case.activation, case.norm == "pre")
    elif case.family == "recurrent":
        model = Recurrent(case.activation, case.depth, 8 if case.norm == "8 rows" else 16)
    else:
        model = build_stack(case)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention, nn.RNNBase)):
            initialize(case, [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1])
    return model


def build_stack(case: Case) -> nn.Module:
    convolve = case.family == "cnn"
    width = 16 if convolve else 64
    parts: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))] if convolve else []
    for index in range(case.depth - 1):
        into = width if index else 1 if convolve else 64
        block: list[nn.Module] = [nn.Conv2d(into, width, 3, padding=1) if convolve else nn.Linear(into, width)]
        if case.norm == "batch":
            block.append(nn.BatchNorm2d(width) if convolve else nn.BatchNorm1d(width))
        elif case.norm == "layer":
            block.append(nn.GroupNorm(1, width) if convolve else nn.LayerNorm(width))
        block.append(ACTIVATIONS[case.activation]())
        parts += [Residual(nn.Sequential(*block))] if case.residual and index else block
        if convolve and index == 2:
            parts.append(nn.MaxPool2d(2))
    parts += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)] if convolve else [nn.Linear(64, 10)]
    return nn.Sequential(*parts)


def initialize(case: Case, weights: list[nn.Parameter]) -> None:
    """Redraw weights; biases stay at torch's default."""
    gain = GAINS.get(case.activation, 1.0)
    for weight in weights:
        fan_in = weight[0].numel()
        if case.init == "gain":
            nn.init.normal_(weight, 0, gain / fan_in**0.5)
        elif case.init == "orthogonal":
            nn.init.orthogonal_(weight, gain)
        elif case.init in ("small", "large"):
            nn.init.normal_(weight, 0, (0.2 if case.init == "small" else 4.0) / fan_in**0.5)


def measure(case: Case, seed: int) -> list[Row]:
    """Diagnose and train one case with every optimizer."""
    torch.set_num_threads(1)
    features, labels = load_digits(return_X_y=True)
    x = torch.tensor((features - features.mean()) / features.std(), dtype=torch.float32)
    y = torch.tensor(labels)
    with seeded(seed):
        order = torch.randperm(len(y))
        x, y = x[order], y[order]
        model = build(case)
        rows = []
        for name, factories in OPTIMIZERS.items():
            tries: list[Row] = []
            for factory in factories:
                setup = TrainingSetup(model, F.cross_entropy, (x[:1400], y[:1400]), factory, steps=STEPS)
                blueprint, observation = probe(setup)
                training = Training(setup, seed)
                training.advance(STEPS)
                score = 0.0 if training.diverged else evaluate(setup, training.model, (x[1400:], y[1400:]))[1]
                tries.append(Row(case, name, blueprint, observation, score))
                if score > GOOD:
                    break
            rows.append(max(tries, key=lambda row: row.score))
    return rows


def outcome(rows: list[Row], goal: float) -> str:
    """Return how a network trains: ``trains`` with both optimizers, ``fails`` with one, or ``between``."""
    shares = [(row.score - CHANCE) / (goal - CHANCE) for row in rows]
    return "trains" if min(shares) >= TRAINED else "fails" if min(shares) < FAILED else "between"


def codes(rows: list[Row], severity: Severity) -> set[str]:
    """Return the codes of all findings of that severity or worse, with either optimizer."""
    found = (finding for row in rows for finding in judge(row.blueprint, row.observation).findings)
    return {finding.code for finding in found if finding.severity >= severity}


def report(networks: list[list[Row]], goal: float) -> None:
    """Print alarms on networks that train and on those that fail, by family and by rule."""
    columns = "trains | alarmed | error | fails | alarmed | error | precision | recall | F1"
    print(f"\n| family | {columns} |\n|---" + "|--:" * 9 + "|")
    for family in (*FAMILIES, "all"):
        part = [rows for rows in networks if family in (rows[0].case.family, "all")]
        groups = {label: [rows for rows in part if outcome(rows, goal) == label] for label in ("trains", "fails")}
        counts = {
            (label, severity): sum(bool(codes(rows, severity)) for rows in group)
            for label, group in groups.items()
            for severity in (Severity.WARNING, Severity.ERROR)
        }
        caught, false = counts["fails", Severity.WARNING], counts["trains", Severity.WARNING]
        missed = len(groups["fails"]) - caught
        cells = [len(groups["trains"]), false, counts["trains", Severity.ERROR]]
        cells += [len(groups["fails"]), caught, counts["fails", Severity.ERROR]]
        scores = [share(caught, false), share(caught, missed), share(2 * caught, false + missed)]
        print(f"| {family} | {' | '.join(map(str, cells))} | {' | '.join(scores)} |")
    print("\n| rule | alarms on networks that train | that fail | that fail with no other alarm |\n|---|--:|--:|--:|")
    alarms = [(outcome(rows, goal), codes(rows, Severity.WARNING)) for rows in networks]
    for code in RULES:
        hits = [(label, found) for label, found in alarms if code in found]
        if hits:
            counted = [sum(label == wanted for label, _ in hits) for wanted in ("trains", "fails")]
            alone = sum(label == "fails" and len(found) == 1 for label, found in hits)
            print(f"| {code} | {counted[0]} | {counted[1]} | {alone} |")
    for rows in networks:
        label, found = outcome(rows, goal), codes(rows, Severity.WARNING)
        if (label == "trains" and found) or (label == "fails" and not found):
            scores = ", ".join(f"{row.score:.2f}" for row in rows)
            print(f"- {rows[0].case}: {label} ({scores}), {', '.join(sorted(found)) or 'no alarm'}")


def share(hits: int, others: int) -> str:
    return f"{hits / (hits + others):.2f}" if hits + others else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data order")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    reference = Case(-1, "mlp", 3, "relu", "gain", "none", False)
    cases = [reference, *draw_cases()]
    first, *networks = Parallel(options.processes)(delayed(measure)(case, options.seed) for case in cases)
    goal = max(row.score for row in first)
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{date.today()}, {machine}, seed {options.seed}; accuracy of the reference {goal:.3f}")
    for name, half in (("for choosing", networks[::2]), ("reported", networks[1::2])):
        print(f"\n## Half {name}: {len(half)} networks")
        report(half, goal)


if __name__ == "__main__":
    main()
