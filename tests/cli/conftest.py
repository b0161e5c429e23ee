"""A folder with a file of set-ups, sound ones and broken ones, as a user may have written them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SETUPS = """\
import sys
import torch
import torch.nn.functional as F
from torch import nn
from functools import partial
from steadygrad import TrainingSetup

g = torch.Generator().manual_seed(0)
y = torch.randint(0, 3, (240,), generator=g)
x = 2 * torch.randn(3, 8, generator=g)[y] + torch.randn(240, 8, generator=g)
sgd = partial(torch.optim.SGD, lr=0.1)
constant = 3

def network(factor=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    for parameter in model.parameters():
        parameter.data.mul_(factor if parameter.dim() > 1 else 1.0)
    return model

def make(model=None, train=(x, y), loss=F.cross_entropy, **changes):
    settings = {"optimizer": sgd, "batch_size": 32, "steps": 30}
    return TrainingSetup(model or network(), loss, train=train, **settings | changes)

def healthy(): return make()
def sick(): return make(network(0.02))
def as_tuple(): return nn.Linear(8, 3), (x, y), F.cross_entropy
def talking():
    print("hello from the user's file")
    class Talking(nn.Linear):
        def forward(self, x):
            print("hello from the model")
            return super().forward(x)
    model = Talking(8, 3)
    model.load_state_dict({"weight": torch.eye(3, 8), "bias": torch.zeros(3)})
    return make(model)

def raises():
    raise RuntimeError("boom")

def exits(): sys.exit(4)
def wants_more(depth): return make()
def number(): return 3
def wrong_tuple(): return nn.Linear(8, 3), (x, y), None
def model_raises(): return make(nn.Linear(9, 3))
def empty(): return make(train=(x[:0], y[:0]))
def one_row(): return make(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), (x[:1], y[:1]))
def integers(): return make(train=((x * 10).long(), y))
def ragged(): return make(train=(x, y[:60]))
def generator(): return make(train=((x, y) for _ in range(0)))
def no_scalar(): return make(loss=partial(F.cross_entropy, reduction="none"))
def no_parameters(): return make(nn.Softmax(1))
def no_optimizer(): return make(optimizer=None)
def instance():
    model = network()
    return make(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
def nan():
    bad = x.clone()
    bad[::3, 2] = float("nan")
    return make(train=(bad, y))
def interrupted(): raise KeyboardInterrupt
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with ``setups.py``, which is the current one; what is imported from it is forgotten afterwards."""
    (tmp_path / "setups.py").write_text(SETUPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
