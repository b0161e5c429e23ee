"""Article 003, the other programs: a linear network trained with gradient clipping, and used afterwards.

What was corrected: classes are built before they are used, gradients are zeroed before each backward pass, clipping
acts on gradients between backward pass and step (the article multiplies all weights by 0.99 after it), targets depend
on the inputs, and the trained network is scored on data it has not seen (the article compares the outputs of a fresh
network with its inputs). Inputs that are now and then a hundred times too large make clipping worth its while.

    python -m experiments.articles.linear_network_with_clipping
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.training import seeded

FEATURES, ROWS, TEST_ROWS, BATCH, EPOCHS, OUTLIER = 10, 1000, 200, 20, 5, 100.0


def data(rows: int, truth: Tensor, outliers: bool) -> tuple[Tensor, Tensor]:
    """Return inputs ``(rows, features)``, one in a hundred far too large if there are ``outliers``, and targets."""
    x = torch.randn(rows, FEATURES)
    y = x @ truth + 0.1 * torch.randn(rows, 1)
    if outliers:
        x[::100] *= OUTLIER
    return x, y


def train(x: Tensor, y: Tensor, max_norm: float | None, lr: float = 0.01) -> nn.Linear:
    """Return a linear network trained by gradient descent on the mean squared error."""
    model = nn.Linear(FEATURES, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.mse_loss(model(x[index]), y[index]).backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
    return model


def error(max_norm: float | None, seed: int = 0) -> float:
    """Return the mean squared error on clean held-out data, in units of the targets' variance."""
    with seeded(seed):
        truth = torch.randn(FEATURES, 1)
        model = train(*data(ROWS, truth, outliers=True), max_norm)
        x, y = data(TEST_ROWS, truth, outliers=False)
    with torch.no_grad():
        return (F.mse_loss(model(x), y) / y.var()).item()


def main() -> None:
    """Print the error without clipping and with it."""
    for max_norm in (None, 10.0, 1.0):
        print(f"clipped at {max_norm!s:<4}: held-out error {error(max_norm):.3g} of the targets' variance")


if __name__ == "__main__":
    main()
