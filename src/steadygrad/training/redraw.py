"""Draw a network's weights afresh without knowing how they were drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["shuffle_weights"]


def shuffle_weights(model: nn.Module) -> None:
    """Permute the units of every trainable weight of two or more dimensions in place, from torch's global random state.

    Rows and columns (for a convolution: output and input channels) are permuted independently. For weights drawn
    independently and alike this is a fresh draw with exactly the same scale and shape of distribution; orthogonal
    weights stay orthogonal. The hidden-to-hidden weights of recurrent layers have both sides permuted alike within
    each gate, so that identities stay identities; the row of an embedding's padding index stays in its place. Vectors
    (biases, normalization) and frozen weights stay as they are.
    """
    seen: set[int] = set()
    for module in model.modules():
        recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2 or not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            rows, columns = parameter.shape[:2]
            with torch.no_grad():
                if recurrent and "weight_hh" in name and rows % columns == 0:
                    order = torch.randperm(columns).to(parameter.device)
                    gates = [gate[order][:, order] for gate in parameter.split(columns)]
                    parameter.copy_(torch.cat(gates))
                else:
                    order = _order(rows, getattr(module, "padding_idx", None)).to(parameter.device)
                    parameter.copy_(parameter[order][:, torch.randperm(columns).to(parameter.device)])


def _order(size: int, fixed: int | None) -> Tensor:
    """Return a random order of ``size`` rows in which row ``fixed`` keeps its place."""
    order = torch.randperm(size)
    if fixed is not None:
        order[order == fixed] = order[fixed].clone()
        order[fixed] = fixed
    return order
