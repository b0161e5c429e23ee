"""Article 003, first program: the gradients of a linear network by hand, held against autograd.

What was corrected: the program calls ``model(labels)`` and unpacks a tensor into two names, which fails; its formula
for the chain rule has the sign of the error flipped. Here the gradients of a network of one and of several layers are
written out: ``dL/dW_l = delta_l a_{l-1}'`` and ``delta_{l-1} = W_l' delta_l * f'(z_{l-1})``, with the matrix product
that article 000 replaces by an elementwise one.

    python -m experiments.articles.backpropagation_by_hand
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.training import seeded

Layer = tuple[Tensor, Tensor]
"""Weight ``(out, in)`` and bias ``(out,)``; tanh follows every layer but the last."""


def forward(layers: list[Layer], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output and what goes into each layer, each of shape ``(rows, features)``."""
    inputs = []
    for weight, bias in layers[:-1]:
        inputs.append(x)
        x = torch.tanh(F.linear(x, weight, bias))
    return F.linear(x, *layers[-1]), [*inputs, x]


def backward(layers: list[Layer], inputs: list[Tensor], output: Tensor, target: Tensor) -> list[Layer]:
    """Return the gradients of the mean squared error with respect to every weight and bias, by hand."""
    delta = 2 * (output - target) / target.numel()
    gradients = []
    for (weight, _), x in zip(reversed(layers), reversed(inputs), strict=True):
        gradients.append((delta.T @ x, delta.sum(0)))
        delta = (delta @ weight) * (1 - x.square())  # x is tanh(z) for every layer but the first, whose delta is unused
    return gradients[::-1]


def largest_difference(sizes: tuple[int, ...], rows: int = 100, seed: int = 0) -> float:
    """Return the largest difference between a gradient by hand and autograd's, in float64."""
    with seeded(seed):
        layers = [
            (torch.randn(n, m, dtype=torch.float64) / m**0.5, torch.randn(n, dtype=torch.float64))
            for m, n in pairwise(sizes)
        ]
        x, target = torch.randn(rows, sizes[0]).double(), torch.randn(rows, sizes[-1]).double()
    flat = [part.requires_grad_() for layer in layers for part in layer]
    output, inputs = forward(layers, x)
    truth = torch.autograd.grad(F.mse_loss(output, target), flat)
    with torch.no_grad():
        by_hand = [part for layer in backward(layers, inputs, output, target) for part in layer]
    return max((one - other).abs().max().item() for one, other in zip(by_hand, truth, strict=True))


def main() -> None:
    """Print the differences."""
    for sizes in ((10, 1), (10, 20, 1), (10, 20, 20, 20, 3)):
        print(f"layers {'-'.join(map(str, sizes))}: largest difference {largest_difference(sizes):.1e}")


if __name__ == "__main__":
    main()
