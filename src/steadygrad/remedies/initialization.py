"""Draw weights at the scale at which the signal survives the depth, or the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.branches import zero_residual_
from steadygrad.remedies.drawing import Draw, draw_all_, find_places
from steadygrad.remedies.filling import Distribution, Mode, delta_orthogonal_, orthogonal_, scaled_, small_
from steadygrad.remedies.isometry import isometric_
from steadygrad.remedies.lsuv import looks_linear_, lsuv_
from steadygrad.remedies.recurrent_weights import (
    Recurrent,
    chrono_,
    forget_bias_,
    identity_recurrent_,
    orthogonal_recurrent_,
)
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training import first_batch, preserved, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["initialization"]

Method = Literal[
    "auto", "lsuv", "isometric", "looks_linear", "orthogonal", "delta_orthogonal", "he", "xavier", "lecun", "small",
    "zero_residual", "identity_recurrent", "orthogonal_recurrent", "forget_bias", "chrono",
]  # fmt: skip

_SCALED: dict[str, tuple[Mode, Distribution]] = {
    "he": ("fan_in", "normal"),
    "xavier": ("fan_avg", "uniform"),
    "lecun": ("fan_in", "normal"),
}
_RECURRENT: dict[str, Callable[[Recurrent], None]] = {
    "identity_recurrent": identity_recurrent_,
    "orthogonal_recurrent": orthogonal_recurrent_,
    "forget_bias": forget_bias_,
}
# The settings that each method takes beside its name.
_TAKES: dict[str, frozenset[str]] = {
    "auto": frozenset({"std"}),
    "lsuv": frozenset({"std"}),
    "orthogonal": frozenset({"std"}),
    "delta_orthogonal": frozenset({"std"}),
    "he": frozenset({"std", "distribution", "mode"}),
    "xavier": frozenset({"std", "distribution", "mode"}),
    "lecun": frozenset({"distribution", "mode"}),
    "small": frozenset({"std", "distribution"}),
    "chrono": frozenset({"longest"}),
}
_SMALL = 0.01


@remedy(
    Card(
        name="initialization",
        treats=(Symptom.VANISHING, Symptom.EXPLODING, Symptom.INITIALIZATION, Symptom.SATURATION, Symptom.DEAD_UNITS),
        site=Site.MODEL,
        summary="Draw all weights afresh, at the scale that the activations behind them need.",
        formula="he: Var W = gain^2 / fan_in; xavier: 2 gain^2 / (fan_in + fan_out); lecun: 1 / fan_in; orthogonal: "
        "W W' = gain^2 I; gain = q / sqrt(E f(x)^2) for x ~ N(0, q^2)",
        not_for="What arises while training; small random weights make deep networks vanish.",
        hurts="It throws away what a pretrained network knows.",
        cost="one forward pass",
        reference="Mishkin and Matas 2016, https://arxiv.org/abs/1511.06422; He et al. 2015; Glorot and Bengio 2010; "
        "LeCun et al. 1998; Saxe et al. 2014; Xiao et al. 2018; Balduzzi et al. 2017; Goyal et al. 2017; Le et al. "
        "2015; Jozefowicz et al. 2015; Tallec and Ollivier 2018",
    )
)
@torch.no_grad()
def initialization(
    setup: TrainingSetup,
    *,
    method: Method = "auto",
    std: float | None = None,
    distribution: Literal["auto", "normal", "uniform", "truncated"] = "auto",
    mode: Literal["auto", "fan_in", "fan_out", "fan_avg"] = "auto",
    longest: float | None = None,
) -> TrainingSetup:
    """Draw the weights afresh from torch's global random state; biases become zero, save where LSUV centers.

    Args:
        setup: The set-up to change.
        method: ``"lsuv"``, see :func:`lsuv_`, which ``"auto"`` is too; by formula ``"he"``, ``"xavier"``,
            ``"orthogonal"`` and ``"delta_orthogonal"`` with the gain of the activation that follows each layer, 1 for
            the output, ``"lecun"`` with gain 1, ``"small"`` with none; ``"looks_linear"``, see
            :func:`looks_linear_`; ``"isometric"`` for plain networks of any depth, see :func:`isometric_`. The others
            touch a part of the network only: ``"zero_residual"`` the ends of residual branches,
            ``"identity_recurrent"`` and ``"orthogonal_recurrent"`` the maps from state to state, ``"forget_bias"`` and
            ``"chrono"`` the biases of gates.
        std: Standard deviation of pre-activations; None for the one that suits the activation, 0.1 to 1. For
            ``"small"`` the ``s`` of ``N(0, s^2)`` and ``U(-s, s)``, 0.01.
        distribution: Of the weights; by default uniform for Xavier, else normal.
        mode: What keeps its size: the signal (``"fan_in"``), the gradient (``"fan_out"``), or both by half
            (``"fan_avg"``, the default for Xavier).
        longest: For ``"chrono"``, the longest delay in time steps; by default the length of the sequences.

    Raises:
        NotApplicableError: If the network has nothing that the method could draw.
        UsageError: If a setting is out of range, or the method does not take it.
    """
    settings = {"std": std, "distribution": distribution, "mode": mode, "longest": longest}
    for name, value in settings.items():
        if value not in (None, "auto") and name not in _TAKES.get(method, ()):
            raise UsageError(f"initialization: expected no {name} for method={method!r}, got {value!r}. Leave it out.")
    if method in ("auto", "lsuv"):
        lsuv_(setup, std)
    elif method == "isometric":
        isometric_(setup)
    elif method == "looks_linear":
        looks_linear_(setup)
    elif method == "zero_residual":
        zero_residual_(setup)
    elif method in ("forget_bias", "chrono", "identity_recurrent", "orthogonal_recurrent"):
        _draw_recurrent(setup, method, longest)
    else:
        places = find_places(setup.model, read_blueprint(setup), std)
        draw_all_(places, _formula(method, std, distribution, mode), by_formula=True)
    return setup


def _formula(method: str, s: float | None, distribution: str, mode: str) -> Draw:
    if method in ("orthogonal", "delta_orthogonal"):
        return orthogonal_ if method == "orthogonal" else delta_orthogonal_
    usual_mode, usual_distribution = _SCALED.get(method, ("fan_in", "normal"))
    shape = usual_distribution if distribution == "auto" else cast(Distribution, distribution)
    if method == "small":
        return lambda weight, activation, std: small_(weight, _SMALL if s is None else s, shape)
    fan = usual_mode if mode == "auto" else cast(Mode, mode)
    if method == "lecun":
        return lambda weight, activation, std: scaled_(weight, mode=fan, distribution=shape)
    return partial(scaled_, mode=fan, distribution=shape)


def _draw_recurrent(setup: TrainingSetup, method: str, longest: float | None) -> None:
    modules = [module for module in setup.model.modules() if isinstance(module, (nn.RNNBase, nn.RNNCellBase))]
    if not modules:
        raise NotApplicableError(
            f"initialization: expected recurrent layers for method={method!r}, found none. Choose another method."
        )
    lengths = _sequence_lengths(setup, modules) if method == "chrono" and longest is None else {}
    for module in modules:
        if method == "chrono":
            chrono_(module, longest or lengths[module])
        else:
            _RECURRENT[method](module)


def _sequence_lengths(setup: TrainingSetup, modules: Sequence[nn.Module]) -> dict[nn.Module, int]:
    """Return the time steps that each module makes in one forward pass; the calls of a cell are its steps."""
    lengths = dict.fromkeys(modules, 0)

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0]
        if isinstance(module, nn.RNNCellBase):
            lengths[module] += 1
        elif isinstance(x, Tensor):
            lengths[module] = max(lengths[module], x.shape[1 if module.batch_first and x.dim() == 3 else 0])
        else:  # a PackedSequence
            lengths[module] = max(lengths[module], len(x.batch_sizes))

    with preserved(setup.model), torch.compiler.set_stance("force_eager"):
        for module in modules:
            module.register_forward_pre_hook(note)
        run_model(setup, setup.model, first_batch(setup))
    return lengths
