"""Do deep sigmoid networks vanish, and does pretraining cure them? Gradient ratio at the start and test error.

    python benchmarks/vanishing.py [--data mnist] [--depths 3 5 8] [--seeds 3] [--rows 6000] [--epochs 10]

Sigmoid layers of equal width, SGD 0.1 with momentum 0.9, batch 50. Initializations: N(0, 0.01), PyTorch's default,
Xavier, Xavier with gain 4 (right for sigmoid), and greedy pretraining by CD-1. The ratio is RMS of the gradient of the
first weight over that of the last hidden one, on one batch before training.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.boltzmann.pretraining import pretrain_
from steadygrad.training.datasets import load

INITIALIZATIONS = ("N(0, .01)", "default", "Xavier", "Xavier gain 4", "DBN")


def build(
    inputs: int, depth: int, width: int, how: str, rows: Tensor, pretrain_epochs: int, seed: int
) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in in [inputs] + [width] * (depth - 1):
        layers += [nn.Linear(fan_in, width), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for module in model[: 2 * depth]:
        if isinstance(module, nn.Linear) and how != "default":
            nn.init.zeros_(module.bias)
            if how.startswith("Xavier"):
                nn.init.xavier_normal_(module.weight, 4.0 if "4" in how else 1.0)
            else:
                nn.init.normal_(module.weight, 0, 0.01)
    if how == "DBN":
        pretrain_(model, rows, pretrain_epochs, seed)
    return model


def gradient_ratio(model: nn.Sequential, x: Tensor, y: Tensor, depth: int) -> float:
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    first, last = (model[i].weight.grad.square().mean().sqrt() for i in (0, 2 * (depth - 1)))
    model.zero_grad()
    return float(first / last)


def error_after(model: nn.Sequential, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for index in torch.randperm(len(train[0])).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(train[0][index]), train[1][index]).backward()
            optimizer.step()
    with torch.no_grad():
        return 100 * float((model(test[0]).argmax(1) != test[1]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pretrain-epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    data = load(options.data)
    train = tuple(part[: options.rows] for part in data.train)
    print("depth  initialization   gradient ratio   test error %        seconds")
    for depth in options.depths:
        for how in INITIALIZATIONS:
            start, ratios, errors = time.perf_counter(), [], []
            for seed in range(options.seeds):
                model = build(train[0].shape[1], depth, options.width, how, train[0], options.pretrain_epochs, seed)
                ratios.append(gradient_ratio(model, train[0][:100], train[1][:100], depth))
                errors.append(error_after(model, train, data.test, options.epochs))
            spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
            print(
                f"{depth:5}  {how:15} {statistics.geometric_mean(ratios):13.1e}   "
                f"{statistics.mean(errors):6.2f} ± {spread:5.2f}   {time.perf_counter() - start:10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
