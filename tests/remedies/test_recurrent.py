from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import compose, initialization, recurrent
from steadygrad.training import Training, TrainingSetup, evaluate


class Reader(nn.Module):
    """Reads both the sequence of outputs and the last state."""

    def __init__(self, cells: nn.Module, units: int = 6) -> None:
        super().__init__()
        self.cells, self.out = cells, nn.Linear(2 * units, 3)

    def forward(self, x: Tensor) -> Tensor:
        output, h = self.cells(x)
        return self.out(torch.cat([output[:, -1, : h.shape[-1]], h[-1]], dim=1))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_callers_get_an_output_and_a_state_of_the_old_shapes(make_setup, kind: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    old = nn.RNN(8, 6, num_layers=2, batch_first=True, dropout=0.1, bidirectional=bidirectional)
    setup = make_setup(Reader(old), shape=(5, 8))
    new = recurrent(kind=kind)(setup).model.cells
    assert isinstance(new, {"lstm": nn.LSTM, "gru": nn.GRU}[kind])
    settings = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    assert [getattr(new, name) for name in settings] == [getattr(old, name) for name in settings]
    assert list(new.state_dict()) == list(old.state_dict())
    for ours, theirs in zip(new(setup.train[0]), old(setup.train[0]), strict=True):
        assert ours.shape == theirs.shape


@pytest.mark.filterwarnings("ignore:The tensor attributes self.cells._flat_weights")  # torch's export of any LSTM
def test_an_lstm_gives_what_torchs_own_gives(make_setup) -> None:
    torch.manual_seed(0)
    setup = make_setup(Reader(nn.RNN(8, 6, batch_first=True)), shape=(5, 8))
    model = recurrent()(setup).model
    own = nn.LSTM(8, 6, batch_first=True)
    own.load_state_dict(model.cells.state_dict())
    x = setup.train[0]
    output, (h, _) = own(x)
    for ours, theirs in zip(model.cells(x), (output, h), strict=True):
        assert torch.equal(ours, theirs)
    packed = pack_padded_sequence(x[:2], [5, 3], batch_first=True)
    assert torch.equal(model.cells(packed)[0].data, own(packed)[0].data)
    assert torch.equal(model.cells.bias_ih_l0[6:12], torch.ones(6))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.export.export(model, (x,)).module()):
        assert torch.equal(copied(x), model(x))


class Loop(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.out = cell, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for part in x.chunk(2, dim=1):
            if isinstance(self.cell, nn.RNNCellBase):
                h = self.cell(part[:, 0], h)
            else:
                _, h = self.cell(part, hx=h)
        return self.out(h if h.dim() == 2 else h[-1])


@pytest.mark.parametrize("cell", [nn.RNN(8, 6, batch_first=True), nn.RNNCell(8, 6)])
def test_states_that_callers_carry_fit_a_gru_and_no_lstm(make_setup, cell: nn.Module) -> None:
    setup = make_setup(Loop(cell), shape=(4, 8))
    assert recurrent(kind="gru")(setup).model(setup.train[0]).shape == (48, 3)
    with pytest.raises(NotApplicableError, match=r"cell is given one by its caller.*two parts. Use kind='gru'"):
        recurrent(kind="lstm")(setup)


def test_a_state_given_later_is_refused(make_setup) -> None:
    model = recurrent()(make_setup(Reader(nn.RNN(8, 6, batch_first=True)), shape=(5, 8))).model
    with pytest.raises(UsageError, match=r"HiddenStateLSTM: expected no state as an argument, got one"):
        model.cells(torch.zeros(2, 5, 8), torch.zeros(1, 2, 6))


def test_networks_without_plain_recurrent_layers_are_refused(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"expected nn.RNN modules inside the model, found none"):
        recurrent()(make_setup(mlp()))
    with pytest.raises(NotApplicableError, match=r"found it to be one itself"):
        recurrent()(make_setup(nn.RNN(8, 6), forward=lambda model, batch: model(batch[0])[0]))


class Last(nn.Module):
    def __init__(self, cells: nn.Module) -> None:
        super().__init__()
        self.cells, self.out = cells, nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x)[0][:, -1])


def recall(cells: nn.Module, delay: int) -> TrainingSetup:
    """Which of four symbols came first, ``delay`` noisy steps ago?"""

    def data(seed: int, size: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(4, (size,), generator=generator)
        x = torch.zeros(size, delay, 6)
        x[torch.arange(size), 0, y] = 1
        x[:, 1:, 4] = 0.3 * torch.randn(size, delay - 1, generator=generator)
        return x, y

    return TrainingSetup(
        Last(cells),
        F.cross_entropy,
        data(0, 1024),
        optimizer=lambda p: torch.optim.Adam(p, lr=3e-3),
        validation=data(1, 512),
    )


def accuracy(setup: TrainingSetup, steps: int) -> float:
    training = Training(setup, seed=1)
    training.advance(steps)
    return evaluate(setup, training.model, setup.validation)[1]


@pytest.mark.slow
def test_gates_with_chrono_biases_recall_over_a_delay_that_plain_layers_do_not() -> None:
    torch.manual_seed(0)
    setup = recall(nn.RNN(6, 32, batch_first=True), delay=40)
    chrono = initialization(method="chrono")
    assert accuracy(setup, 200) < 0.4
    assert accuracy(compose(recurrent(kind="gru"), chrono)(setup), 200) > 0.9
    assert accuracy(compose(recurrent(kind="lstm"), chrono)(setup), 200) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_open_forget_gates_recall_sooner_and_chrono_soonest(seed: int) -> None:
    torch.manual_seed(seed)
    setup = recall(nn.LSTM(6, 32, batch_first=True), delay=20)
    plain = accuracy(setup, 100)
    forget, chrono = (accuracy(initialization(method=method)(setup), 100) for method in ("forget_bias", "chrono"))
    assert plain + 0.15 < forget <= chrono > 0.95
