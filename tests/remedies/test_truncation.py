from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import detached, segments, truncated_backpropagation
from steadygrad.training import TrainingSetup


class Reader(nn.Module):
    """A recurrent network that answers after the last time step."""

    def __init__(self, kind: type[nn.RNNBase], **settings: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.out = kind(3, 5, batch_first=True, **settings), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def reading(kind: type[nn.RNNBase], **settings: object) -> TrainingSetup:
    x = torch.randn(4, 11, 3, generator=torch.Generator().manual_seed(1))
    return TrainingSetup(Reader(kind, **settings), F.cross_entropy, (x, torch.arange(4) % 2), batch_size=4)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_stay_and_gradients_stop_at_the_edge_of_a_segment(kind, layers: int) -> None:
    setup = reading(kind, num_layers=layers)
    treated = truncated_backpropagation(length=4)(setup)
    x = setup.train[0].clone().requires_grad_()
    output = treated.model(x)
    torch.testing.assert_close(output, setup.model(x))
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient[:, :8].eq(0).all()  # 11 steps are segments of 4, 4 and 3
    assert gradient[:, 8:].ne(0).any(2).all()
    assert torch.equal(pickle.loads(pickle.dumps(treated.model))(x), output)


def test_the_gradient_is_that_of_a_loop_over_segments() -> None:
    setup = reading(nn.LSTM)
    treated = truncated_backpropagation(length=4)(setup)
    treated.model(setup.train[0]).sum().backward()
    state = None
    for part in segments(setup.train[0], 4):
        output, state = setup.model.rnn(part, detached(state))
    setup.model.out(output[:, -1]).sum().backward()
    ours = dict(treated.model.named_parameters())
    for name, parameter in setup.model.named_parameters():
        torch.testing.assert_close(ours[name.replace("rnn.", "rnn.rnn.")].grad, parameter.grad)


@pytest.mark.parametrize("shape", [(11, 4, 3), (11, 3)])
def test_time_may_come_first_and_the_batch_may_be_missing(shape) -> None:
    rnn = nn.GRU(3, 5)
    setup = TrainingSetup(nn.Sequential(rnn), lambda o, t: o[0].sum(), (torch.ones(2, 3),), batch_size=2)
    treated = truncated_backpropagation(length=4)(setup)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(treated.model(x), rnn(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_states_are_cut_off_in_any_nest() -> None:
    leaf = torch.ones(2, requires_grad=True)
    assert detached(None) is None
    state = detached((leaf * 2, [leaf * 3]))
    assert not state[0].requires_grad
    assert not state[1][0].requires_grad
    assert [part.shape[0] for part in segments(torch.zeros(7, 2), 3, dim=0)] == [3, 3, 1]


def test_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"found one of two directions"):
        truncated_backpropagation()(reading(nn.LSTM, bidirectional=True, proj_size=0))
    with pytest.raises(NotApplicableError, match=r"found none that is not cut already"):
        truncated_backpropagation()(truncated_backpropagation()(reading(nn.RNN)))
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 3)])
    with pytest.raises(NotApplicableError, match=r"got PackedSequence. Pad the sequences, do not pack them"):
        truncated_backpropagation()(reading(nn.RNN)).model.rnn(packed)
    with pytest.raises(UsageError, match=r"expected length to be a whole number of at least 1, got 0"):
        truncated_backpropagation(length=0)(reading(nn.RNN))
