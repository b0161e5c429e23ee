"""Draw the weights of recurrent layers so that their state lasts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError

__all__ = ["Recurrent", "chrono_", "forget_bias_", "identity_recurrent_", "orthogonal_recurrent_"]

Recurrent = nn.RNNBase | nn.RNNCellBase
_INPUT_STD = 1e-3  # Le et al. 2015, sec. 4
_LSTM, _GRU = (nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)


@torch.no_grad()
def identity_recurrent_(module: Recurrent, scale: float = 1.0) -> None:
    """Make the state's map to itself ``scale`` times the identity: an IRNN, whose state lasts until inputs change it.

    Input weights are drawn from N(0, 0.001^2) and biases set to 0.

    Args:
        module: An ``nn.RNN`` or ``nn.RNNCell`` with ReLU.
        scale: 1 keeps the state; below 1 it decays by this factor a step.

    Raises:
        NotApplicableError: If it has gates or tanh.

    Reference:
        Le et al., A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, 2015, sec. 3.
        https://arxiv.org/abs/1504.00941
    """
    if getattr(module, "nonlinearity", None) != "relu":
        raise NotApplicableError(
            f"identity_recurrent: expected an nn.RNN with nonlinearity='relu', got {module!r}. "
            "Use 'orthogonal_recurrent' with tanh, and 'chrono' for gates."
        )
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("weight_hh"):
            nn.init.eye_(parameter).mul_(scale)
        elif name.startswith("weight"):
            nn.init.normal_(parameter, std=_INPUT_STD)
        else:
            parameter.zero_()


@torch.no_grad()
def orthogonal_recurrent_(module: Recurrent) -> None:
    """Make the state's map to itself orthogonal, gate by gate; all else stays.

    Reference:
        Saxe et al., Exact Solutions to the Nonlinear Dynamics of Learning, 2014. https://arxiv.org/abs/1312.6120
    """
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("weight_hh"):
            for gate in parameter.split(module.hidden_size):
                # Half precision has no QR decomposition.
                dtype = gate.dtype if gate.dtype is torch.float64 else torch.float32
                gate.copy_(nn.init.orthogonal_(torch.empty(gate.shape, dtype=dtype, device=gate.device)))


@torch.no_grad()
def forget_bias_(module: Recurrent, value: float = 1.0) -> None:
    """Set the bias of an LSTM's forget gates, the sum of torch's two bias vectors, to ``value``; all else stays.

    Raises:
        NotApplicableError: If it is no LSTM or has no biases.

    Reference:
        Jozefowicz et al., An Empirical Exploration of Recurrent Network Architectures, 2015, sec. 2.2.
    """
    if not isinstance(module, _LSTM):
        raise NotApplicableError(
            f"forget_bias: expected an LSTM, got {module!r}. Replace an RNN by recurrent(kind='lstm'), or use 'chrono' "
            "for a GRU."
        )
    for gates in _bias_gates(module, "forget_bias"):
        _set(gates["f"], torch.full_like(gates["f"][0], value))


@torch.no_grad()
def chrono_(module: Recurrent, longest: float) -> None:
    """Draw gate biases so that the time that units remember is spread evenly from 1 to ``longest`` steps.

    For an LSTM, ``b_f = log(u)`` and ``b_i = -b_f`` with ``u`` uniform in ``[1, longest - 1]``; for a GRU the update
    gate, which in torch keeps the old state, gets ``log(u)``. All else stays.

    Args:
        module: An LSTM or GRU, layer or cell.
        longest: The longest delay to bridge, in time steps, above 2.

    Raises:
        NotApplicableError: If it has no gates or no biases.

    Reference:
        Tallec and Ollivier, Can Recurrent Neural Networks Warp Time?, 2018, eq. 16. https://arxiv.org/abs/1804.11188
    """
    if not 2 < longest < math.inf:
        raise UsageError(f"chrono: expected a longest delay above 2 time steps, got {longest}.")
    if not isinstance(module, _LSTM + _GRU):
        raise NotApplicableError(
            f"chrono: expected an LSTM or GRU, got {module!r}. Make it one with recurrent(kind='lstm')."
        )
    for gates in _bias_gates(module, "chrono"):
        keep = gates["f"] if "f" in gates else gates["z"]
        memory = torch.empty_like(keep[0]).uniform_(1, longest - 1).log_()
        _set(keep, memory)
        if "i" in gates:
            _set(gates["i"], -memory)


def _bias_gates(module: Recurrent, where: str) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Yield for each layer and direction its gates' two bias vectors, as views, by the letters of torch's docs."""
    if not module.bias:
        raise NotApplicableError(f"{where}: expected gates with biases, got {module!r}. Build it with bias=True.")
    parameters = dict(module.named_parameters(recurse=False))
    letters = "ifgo" if isinstance(module, _LSTM) else "rzn"
    for name, bias in parameters.items():
        if name.startswith("bias_ih"):
            other = parameters[name.replace("_ih", "_hh")]
            pairs = zip(bias.split(module.hidden_size), other.split(module.hidden_size), strict=True)
            yield dict(zip(letters, pairs, strict=True))


def _set(biases: tuple[Tensor, Tensor], value: Tensor) -> None:
    biases[0].copy_(value)
    biases[1].zero_()
