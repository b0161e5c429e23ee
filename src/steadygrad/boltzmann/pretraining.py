"""Greedy pretraining as a remedy: the weights of a deep sigmoid network learned without targets."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn

from steadygrad.boltzmann.gibbs import CD
from steadygrad.boltzmann.layers import new_machine, resolve, start_visible
from steadygrad.boltzmann.learning import Learner
from steadygrad.boltzmann.network import linear_of
from steadygrad.boltzmann.precision import resolve_precision
from steadygrad.boltzmann.sources import ArraySource, moments_of, usual_batch
from steadygrad.boltzmann.units import Bernoulli
from steadygrad.errors import NotApplicableError
from steadygrad.records import Symptom
from steadygrad.remedies import CATALOGUE
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training import TrainingSetup, device_of, one_pass
from steadygrad.training.forward import input_tensors

__all__ = ["pretrain_", "pretraining"]

_FIRST_RATE = 0.1
_FIRST_REAL_RATE = 0.01  # real units have no bounds, Hinton 2010, sec. 13.2
_MOMENTUM = (0.5, 0.8)  # in the first pass and after it, Hinton 2010, sec. 9; without it deep layers stay near 0
_ROWS = 60_000  # rows kept for pretraining; more do not fit every memory


def pretrain_(model: nn.Sequential, rows: Tensor, epochs: int = 5, seed: int = 0) -> int:
    """Pretrain the ``Linear, Sigmoid`` pairs at the start of ``model`` in place and return how many there were.

    Each pair learns as a restricted Boltzmann machine by CD-1 on the outputs of the one before. Inputs in [0, 1] get
    Bernoulli units, others Gaussian ones, whose scale is folded into the first layer. What follows stays as it is.

    Args:
        model: The network; dropout between the pairs is passed over.
        rows: Inputs, shape ``(n, features)``.
        epochs: Passes a layer.
        seed: Where chance comes from.

    Reference:
        Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006.
    """
    pairs = _pairs(model)
    size = usual_batch(len(rows))
    for number, linear in enumerate(pairs):
        source = ArraySource(rows.cpu().numpy())
        moments = moments_of(source)
        generator = torch.Generator(rows.device).manual_seed(seed + number)
        visible = start_visible(resolve("auto", moments), moments)
        machine = new_machine(visible, "bernoulli", linear.out_features, generator)
        precision = resolve_precision("auto", machine.weight.numel(), rows.device)
        learner = Learner(machine, CD(), generator, precision=precision)
        first_rate = _FIRST_RATE if isinstance(machine.visible, Bernoulli) else _FIRST_REAL_RATE
        for epoch in range(epochs):
            rate = first_rate * (1 - epoch / epochs)
            for batch in source.batches(size, seed + epoch):
                learner.step(batch.to(rows.device), rate * len(batch) / size, _MOMENTUM[epoch > 0])
        weight, bias = linear_of(machine)
        with torch.no_grad():
            linear.weight.copy_(weight)
            if linear.bias is not None:
                linear.bias.copy_(bias)
            rows = torch.cat([machine.hidden.mean_(machine.hidden_field(part)) for part in rows.split(1024)])
    return len(pairs)


def _pairs(model: nn.Module) -> list[nn.Linear]:
    """Return the Linear layers of the Linear-Sigmoid pairs that a sequential network begins with."""
    layers = [
        m
        for m in model.modules()
        if not list(m.children()) and not isinstance(m, (nn.Dropout, nn.Identity, nn.Flatten))
    ]
    found: list[nn.Linear] = []
    for first, second in zip(layers[::2], layers[1::2], strict=False):
        if not isinstance(first, nn.Linear) or not isinstance(second, nn.Sigmoid):
            break
        found.append(first)
    return found


@remedy(
    Card(
        name="pretraining",
        treats=(Symptom.VANISHING, Symptom.INITIALIZATION, Symptom.SATURATION),
        site=Site.MODEL,
        summary="Learn a sigmoid stack layer by layer as restricted Boltzmann machines, without targets.",
        reference="Hinton and Salakhutdinov 2006; Erhan et al. 2010, https://jmlr.org/papers/v11/erhan10a.html",
        hurts="Narrow layers, and inputs whose structure has nothing to do with the targets.",
        cost="a few passes over the inputs a layer, before training begins",
        not_for="Anything but a chain of Linear and Sigmoid from the input on.",
        formula="dW = <v h>_data - <v h>_reconstruction",
    )
)
def pretraining(setup: TrainingSetup, *, epochs: int = 5) -> TrainingSetup:
    """Pretrain the Linear-Sigmoid pairs at the start of the network on the training inputs.

    Args:
        setup: The set-up to change.
        epochs: Passes over the inputs a layer.
    """
    model = setup.model
    if not isinstance(model, nn.Sequential) or len(_pairs(model)) < 2:
        raise NotApplicableError(
            "pretraining: expected a torch.nn.Sequential that begins with two or more pairs of Linear and Sigmoid, got "
            f"{type(model).__name__} with {len(_pairs(model))}. Use initialization(method='auto') instead."
        )
    rows = _inputs(setup)
    if rows.shape[1] != _pairs(model)[0].in_features:
        raise NotApplicableError("pretraining: expected inputs that go into the first layer as they are.")
    pretrain_(model, rows, int(epochs), setup.seed)
    return setup


def _inputs(setup: TrainingSetup) -> Tensor:
    """Return up to 60,000 training inputs as rows."""
    device = device_of(setup)
    batches = (input_tensors(batch) for batch in one_pass(setup.train, 1000, device))
    parts = [tensors[0].flatten(1).float() for tensors in islice(batches, _ROWS // 10) if tensors]
    if not parts:
        raise NotApplicableError("pretraining: expected batches with an input tensor, found none.")
    return torch.cat(parts)[:_ROWS]


CATALOGUE[pretraining.card.name] = pretraining
