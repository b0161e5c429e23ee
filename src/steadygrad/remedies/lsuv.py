"""Layer-sequential unit variance: weights rescaled layer by layer on what a batch makes of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from steadygrad.errors import NotApplicableError
from steadygrad.remedies.drawing import Place, draw_all_, find_places
from steadygrad.remedies.filling import orthogonal_
from steadygrad.signals.blueprint import plain_model, read_blueprint
from steadygrad.training import Batch, first_batch, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["calibrate_", "looks_linear_", "lsuv_"]

_ALIKE = 1e-6  # deviations below this share of the size are float32 rounding


@torch.no_grad()
def lsuv_(setup: TrainingSetup, std: float | None = None, batch: Batch | None = None) -> None:
    """Draw orthogonal weights and rescale them layer by layer on one batch, in place on the set-up's model.

    In execution order, within a single forward pass, each layer's weight is rescaled so that its output has the wanted
    standard deviation. Two kinds of activations need different weights for that to be enough at depth:

    - Rectifiers (ReLU, GELU, SiLU, ELU ...): biases zero, the second moment set, and in networks without shortcuts the
      weights *mirrored*: every unit has a twin with the opposite weights, and the next layer reads their difference. As
      ``f(z) - f(-z)`` is ``z`` for most of them, the network starts linear and orthogonal. Centering instead would
      multiply the gradients' mean square by 1.47 a ReLU layer, as BatchNorm does (Yang et al. 2019).
    - Others (sigmoid, tanh, softplus ...): the bias cancels each unit's mean over the batch. Without that the common
      mean drowns the signal, and a sigmoid network of 30 layers stays at chance.

    Departures from Mishkin and Matas: mirroring, centering, targets other than 1, and one exact rescaling (a layer is
    linear in its weight) where they iterate.

    Args:
        setup: Its model is changed: weights and biases of Linear, Conv, recurrent and attention modules that are
            called, trainable and not parametrized. BatchNorm statistics and hooks are left as found.
        std: Standard deviation of pre-activations; None for the one that suits the activation, 0.1 to 1.
        batch: The batch; by default the first of the training data.

    Raises:
        NotApplicableError: If there is no such module.

    Reference:
        Mishkin and Matas, All You Need Is a Good Init, 2016, algorithm 1. https://arxiv.org/abs/1511.06422
        Balduzzi et al., The Shattered Gradients Problem, 2017, sec. 4 (looks-linear). https://arxiv.org/abs/1702.08591
    """
    batch = first_batch(setup) if batch is None else batch
    places = find_places(setup.model, read_blueprint(setup, batch), std)
    draw_all_(places, orthogonal_, by_formula=False)
    calibrate_(setup, places, batch)


@torch.no_grad()
def calibrate_(setup: TrainingSetup, places: list[Place], batch: Batch) -> None:
    """Rescale weights, and center by biases, layer by layer on one batch, to what each place is to give."""
    buffers = [(buffer, buffer.clone()) for buffer in setup.model.buffers()]
    modes = {module: module.training for module in setup.model.modules()}
    # Hooks come first, to see what the layer itself gives: a normalization may be hooked on behind.
    calibrations = [
        _Calibration(place) for place in places if isinstance(place.module, (nn.Linear, _ConvNd, nn.Bilinear))
    ]
    handles = [each.place.module.register_forward_hook(each, prepend=True) for each in calibrations]
    try:
        setup.model.train()
        with torch.compiler.set_stance("force_eager"):
            run_model(setup, plain_model(setup.model), batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)


@torch.no_grad()
def looks_linear_(setup: TrainingSetup, batch: Batch | None = None) -> None:
    """Draw orthogonal weights and mirror them, so that a plain rectifier network starts as a linear isometry.

    Every unit gets a twin with the opposite weights, and the next layer reads their difference: ``f(z) - f(-z) = z``
    for ReLU, GELU, SiLU and softplus. Biases become 0. :func:`lsuv_` does the same and then rescales on a batch.

    Args:
        setup: Its model is changed.
        batch: The batch that shows what follows what; by default the first of the training data.

    Raises:
        NotApplicableError: If there are no two hidden layers of even width with such an activation between, or
            there is a shortcut.

    Reference:
        Balduzzi et al., The Shattered Gradients Problem, 2017, sec. 4. https://arxiv.org/abs/1702.08591
    """
    places = find_places(setup.model, read_blueprint(setup, batch), None)
    if not any(place.twins_in for place in places):
        raise NotApplicableError(
            "looks_linear: expected a plain network of layers of even width with rectifiers between, found none. "
            "Use method='lsuv'."
        )
    draw_all_(places, orthogonal_, by_formula=False)


class _Calibration:
    """A forward hook that rescales its module at the first call and corrects the output of that call."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._done = False

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if self._done:
            return output
        self._done = True
        places = len(module.kernel_size) if isinstance(module, _ConvNd) else 0  # dimensions behind that of the units
        mean, measured = self._measure(output.double().movedim(-1 - places, -1).flatten(0, -2))
        if not 0 < measured < math.inf:
            return output  # no input signal reaches this layer: no scale is right
        scale = self.place.std / measured
        module.get_parameter("weight").mul_(scale)
        bias = module._parameters["bias"]
        if bias is None or not self.place.centered:
            return output * scale
        bias.copy_(-scale * mean)
        return output * scale + bias.reshape(-1, *[1] * places)

    def _measure(self, units: Tensor) -> tuple[Tensor, float]:
        """Return the means of units of shape ``(samples, units)`` and their standard deviation, or RMS."""
        mean = units.mean(0)
        spread = (units - mean).square().mean().sqrt().item()
        size = units.square().mean().sqrt().item()
        # One sample, or samples that are all alike, have no deviation to go by.
        return mean, spread if self.place.centered and spread > _ALIKE * size else size
