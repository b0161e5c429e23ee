"""Give recurrent layers gates: plain RNNs become LSTMs or GRUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.plan import Plan, planned, replacing
from steadygrad.remedies.recurrent_weights import forget_bias_
from steadygrad.remedies.remedy import Card, Site
from steadygrad.signals.blueprint import plain_model
from steadygrad.training import first_batch, preserved, run_model
from steadygrad.training.setup import TrainingSetup

__all__ = ["HiddenStateLSTM", "recurrent"]


class HiddenStateLSTM(nn.LSTM):
    """An LSTM that returns ``output, h`` as a plain RNN does, and not ``output, (h, c)``.

    As ``h`` alone does not carry on where a sequence was cut, it takes no state.
    """

    def forward(self, input: Any, hx: None = None) -> tuple[Any, Tensor]:  # type: ignore[override]  # noqa: A002
        """Run over whole sequences.

        Raises:
            UsageError: If a state is passed.
        """
        if hx is not None:
            raise UsageError(
                "HiddenStateLSTM: expected no state as an argument, got one. An LSTM's state has two parts, of which "
                "callers of an RNN hold one; use a GRU, or let the model itself handle (h, c)."
            )
        output, (hidden, _) = super().forward(input)
        return output, hidden


@planned(
    Card(
        name="recurrent",
        treats=(Symptom.VANISHING,),
        site=Site.MODEL,
        summary="Replace plain recurrent layers by LSTM or GRU layers of the same size.",
        formula="lstm: c = f * c + i * g, h = o * tanh(c); gru: h = (1 - z) * n + z * h; gates are sigmoids",
        not_for="Explosion over time: gates do not bound it, clipping does.",
        hurts="What the old layer has learned is lost; the forget gate still closes over delays much longer than the "
        "chrono initialization is told.",
        cost="four (LSTM) or three (GRU) times the weights and multiplications of the layer",
        reference="Hochreiter and Schmidhuber 1997; Cho et al. 2014, https://arxiv.org/abs/1406.1078; Jozefowicz et "
        "al. 2015 (forget bias)",
    )
)
def recurrent(setup: TrainingSetup, *, kind: Literal["lstm", "gru"] = "lstm") -> Plan:
    """Replace every ``nn.RNN`` by an ``nn.LSTM`` or ``nn.GRU`` with the same inputs, units, layers and directions.

    Callers go on to get ``output, h``. Forget gates start at a bias of 1; the rest is drawn as torch draws it.

    Args:
        setup: The set-up to change.
        kind: ``"gru"`` also replaces ``nn.RNNCell`` and layers that are given a state by their caller, which an LSTM
            cannot: its state has two parts.

    Raises:
        NotApplicableError: If there is no such layer, or an LSTM cannot stand in for it.
    """
    model = plain_model(setup.model)
    old = [module for module in model.modules() if isinstance(module, (nn.RNN, nn.RNNCell))]
    if not old or model in old:
        raise NotApplicableError(
            f"recurrent: expected nn.RNN modules inside the model, found {'it to be one itself' if old else 'none'}. "
            "LSTM and GRU layers have gates already; initialize them with method='chrono'."
        )
    if kind == "lstm":
        _check_states(setup, model, old)
    return Plan(tuple(change for module in old for change in replacing(model, module, _gated(module, kind))))


def _gated(old: nn.RNN | nn.RNNCell, kind: str) -> nn.Module:
    if isinstance(old, nn.RNNCell):
        return nn.GRUCell(old.input_size, old.hidden_size, old.bias).to(old.weight_ih.device, old.weight_ih.dtype)
    new = (HiddenStateLSTM if kind == "lstm" else nn.GRU)(
        old.input_size, old.hidden_size, old.num_layers, old.bias, old.batch_first, old.dropout, old.bidirectional
    )
    if isinstance(new, nn.LSTM) and new.bias:
        forget_bias_(new)
    weight = old.get_parameter("weight_ih_l0")
    return new.to(weight.device, weight.dtype)


def _check_states(setup: TrainingSetup, model: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Refuse layers whose caller hands them a state."""
    names = {module: name for name, module in model.named_modules()}
    given: list[str] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(state is not None for state in (*args[1:], kwargs.get("hx"))):
            given.append(names[module])

    with preserved(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for module in modules:
            module.register_forward_pre_hook(note, with_kwargs=True)
        run_model(setup, model, first_batch(setup))
    given += [names[module] for module in modules if isinstance(module, nn.RNNCell)]
    if given:
        raise NotApplicableError(
            f"recurrent: expected layers that start from a zero state, but {given[0]} is given one by its caller, and "
            "an LSTM's has two parts. Use kind='gru', or let the model handle (h, c)."
        )
