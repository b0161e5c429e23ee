"""The activations of networks that learn nothing are replaced by step functions: true ones, whose slope is 0 wherever
there is one, and such with a straight-through estimate of the slope (Bengio et al. 2013).
"""

import copy

import torch
from torch import Tensor, nn

from experiments.claims.rescue import EXPLODING, SIGMOID, Rescue
from steadygrad.remedies import Step
from steadygrad.training import TrainingSetup


class TrueStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (torch.sign(x) + 1) / 2  # autograd gives sign its true slope, 0


def true_steps(setup: TrainingSetup) -> TrainingSetup:
    return swapped(setup, TrueStep)


def straight_through(setup: TrainingSetup) -> TrainingSetup:
    return swapped(setup, Step)


def swapped(setup: TrainingSetup, kind: type[nn.Module]) -> TrainingSetup:
    layers = [module if isinstance(module, nn.Linear) else kind() for module in copy.deepcopy(setup.model).children()]
    return setup.replace(model=nn.Sequential(*layers))


TRIAL = Rescue((SIGMOID, EXPLODING), {"step": true_steps, "step, straight-through": straight_through})

CLAIM = TRIAL.claim(
    sentence="Step functions as activations help against unstable gradients.",
    articles=("001",),
)
