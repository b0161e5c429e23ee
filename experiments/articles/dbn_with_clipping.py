"""Article 000: a deep belief network trained with gradient clipping.

What was corrected: the biases carry their usual names (``a`` visible, ``b`` hidden); machines are pretrained by
contrastive divergence, without which the printed program is a sigmoid network with weights from N(0, 0.01²) that
cannot learn; ``F`` is imported; data and a held-out score are there. The 784-500-300-200-10 network of the article runs
with ``--data mnist``.

    python -m experiments.articles.dbn_with_clipping [--data mnist]
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.training import seeded
from steadygrad.training.datasets import Dataset, load

SIZES = {"mnist": (784, 500, 300, 200), "digits": (64, 100, 80, 60)}
BATCH, PRETRAIN_EPOCHS, EPOCHS, MOST_ROWS = 50, 8, 8, 10_000


class RBM(nn.Module):
    """A restricted Boltzmann machine of binary units."""

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.01 * torch.randn(hidden, visible))
        self.a = nn.Parameter(torch.zeros(visible))
        self.b = nn.Parameter(torch.zeros(hidden))

    def forward(self, v: Tensor) -> Tensor:
        """Return the probabilities of the hidden units, shape ``(rows, hidden)``."""
        return torch.sigmoid(F.linear(v, self.W, self.b))

    @torch.no_grad()
    def contrastive_divergence_(self, v: Tensor, speed: list[Tensor], lr: float = 0.1) -> None:
        """Make one CD-1 update with momentum 0.8 (Hinton 2002; 2010, sec. 3 and 9)."""
        h = self(v)
        v_model = torch.sigmoid(F.linear(torch.bernoulli(h), self.W.T, self.a))
        h_model = self(v_model)
        steps = (h.T @ v - h_model.T @ v_model) / len(v), (v - v_model).mean(0), (h - h_model).mean(0)
        for parameter, step, moving in zip((self.W, self.a, self.b), steps, speed, strict=True):
            parameter += moving.mul_(0.8).add_(lr * step)


class DBN(nn.Module):
    """Machines stacked one on the other, and a linear layer for the classes."""

    def __init__(self, sizes: tuple[int, ...], classes: int = 10) -> None:
        super().__init__()
        self.rbms = nn.ModuleList(RBM(*pair) for pair in pairwise(sizes))
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores, shape ``(rows, classes)``."""
        for rbm in self.rbms:
            x = rbm(x)
        return self.fc(x)


def pretrain_(model: DBN, rows: Tensor) -> None:
    """Teach the machines from the data upwards, each on what the one below makes of the data."""
    for rbm in model.rbms:
        speed = [torch.zeros_like(parameter) for parameter in (rbm.W, rbm.a, rbm.b)]
        for _ in range(PRETRAIN_EPOCHS):
            for index in torch.randperm(len(rows)).split(BATCH):
                rbm.contrastive_divergence_(rows[index], speed)
        rows = rbm(rows).detach()


def train_(model: DBN, x: Tensor, y: Tensor, max_norm: float | None) -> float:
    """Fine-tune with labels and return the share of steps that were clipped."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    clipped, steps = 0, 0
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            if max_norm is not None:
                clipped += int(nn.utils.clip_grad_norm_(model.parameters(), max_norm) > max_norm)
            optimizer.step()
            steps += 1
    return clipped / steps


def run(data: Dataset, pretrained: bool, max_norm: float | None, seed: int = 0) -> tuple[float, float]:
    """Return the held-out accuracy of one training, and the share of its steps that were clipped."""
    x, y = (part[:MOST_ROWS] for part in data.train)
    with seeded(seed):
        model = DBN(SIZES[data.name])
        if pretrained:
            pretrain_(model, x)
        clipped = train_(model, x, y, max_norm)
    with torch.no_grad():
        return (model(data.test[0]).argmax(1) == data.test[1]).double().mean().item(), clipped


def main() -> None:
    """Train with and without pretraining and clipping and print what came out."""
    parser = argparse.ArgumentParser(description="A deep belief network with gradient clipping.")
    parser.add_argument("--data", choices=SIZES, default="digits")
    data = load(parser.parse_args().data)
    print("pretrained  clipped at  accuracy  steps clipped")
    for pretrained in (False, True):
        for max_norm in (None, 1.0):
            accuracy, clipped = run(data, pretrained, max_norm)
            print(f"{pretrained!s:<10}  {max_norm!s:<10}  {accuracy:8.3f}  {clipped:.0%}")


if __name__ == "__main__":
    main()
