"""All that hangs on one watched model: its taps, and where their numbers go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from steadygrad.monitor.activation_tap import ActivationTap, Watch, inner_model
from steadygrad.monitor.forensics import CallKeeper
from steadygrad.monitor.looks import Places
from steadygrad.monitor.optimizer_tap import OptimizerTap
from steadygrad.monitor.wiring import WiringTap
from steadygrad.signals.layers import kind_of, plain_name

__all__ = ["WatchedModel"]


class WatchedModel:
    """The taps of one model; they are on it from the start until :meth:`detach`.

    Args:
        model: The network.
        prefix: Stands before the names of its layers.
        places: Gets its layers and parameters.
        watch: Whether a look is due.
        on_fault: Gets exceptions of the taps.

    Attributes:
        outputs: Reads what its layers give.
        wiring: Reads which layer follows which.
        keeper: Keeps its last call.
        rows: Where the rows of ``outputs`` go in a look.
    """

    def __init__(
        self, model: nn.Module, prefix: str, places: Places, watch: Watch, on_fault: Callable[[BaseException], None]
    ) -> None:
        self.model = model
        self.outputs = ActivationTap(model, watch, on_fault)
        self.wiring = WiringTap(model, prefix, on_fault)
        self.keeper = CallKeeper(model, watch, on_fault)
        self.rows = np.array([places.add_layer(prefix + layer) for layer in self.outputs.names], dtype=np.int64)
        self._owned = set()
        for full, parameter in inner_model(model).named_parameters():
            layer = plain_name(full).rpartition(".")[0] or kind_of(inner_model(model))
            places.add_parameter(parameter, prefix + layer)
            self._owned.add(id(parameter))

    def belongs_to(self, tap: OptimizerTap) -> bool:
        """Whether an optimizer steps parameters of this model."""
        return any(id(parameter) in self._owned for parameter in tap.parameters)

    def detach(self) -> None:
        """Take all hooks away."""
        for part in (self.outputs, self.wiring, self.keeper):
            part.detach()
