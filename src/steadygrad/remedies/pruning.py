"""Hold the smallest weights of a network at zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from steadygrad.errors import UsageError
from steadygrad.remedies.parametrization import hidden_weights, make_picklable
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training.setup import TrainingSetup

__all__ = ["Masked", "pruning"]


class Masked(nn.Module):
    """A parametrization: a weight times a fixed mask of zeros and ones."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Keep the weight as it is below the mask."""
        return weight


@remedy(
    Card(
        name="pruning",
        treats=(),
        site=Site.MODEL,
        summary="Hold the smallest of all hidden weights at zero.",
        reference="Han et al. 2015, https://arxiv.org/abs/1506.02626; Blalock et al. 2020, https://arxiv.org/abs/2003.03033",
        hurts="It is made for trained networks; before training it is a sparse initialization of a smaller scale.",
        cost="one product a weight and step; zeros are not skipped",
        not_for="Exploding: the largest weights, which make it, are the ones that stay. Vanishing gets worse.",
        formula="W = V * mask, mask = |V| above its quantile over all hidden weights together",
    )
)
def pruning(setup: TrainingSetup, *, amount: float = 0.5) -> TrainingSetup:
    """Prune hidden weights by magnitude, with one threshold for all layers.

    The masks are those of ``torch.nn.utils.prune.global_unstructured``, held by parametrizations: torch's own pruning
    hooks leave models that cannot be copied.

    Args:
        setup: The set-up to change.
        amount: Share of the hidden weights to prune, at least 0 and below 1.
    """
    if not 0 <= amount < 1:
        raise UsageError(f"pruning: expected amount at least 0 and below 1, got {amount}. Start with 0.5.")
    modules = list(hidden_weights(setup.model, read_blueprint(setup)))
    weights = [module.get_parameter("weight") for module in modules]
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    kept = prune.L1Unstructured(amount).compute_mask(flat, torch.ones_like(flat))
    masks = kept.split([weight.numel() for weight in weights])
    for module, weight, mask in zip(modules, weights, masks, strict=True):
        make_picklable(parametrize.register_parametrization(module, "weight", Masked(mask.view_as(weight))))
    return setup
