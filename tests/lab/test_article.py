from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steadygrad.errors import DataFileError, UsageError
from steadygrad.lab import mlp, mnist_grid, run


def test_the_parts_of_the_data_do_not_overlap_and_the_seed_draws_the_training_rows() -> None:
    setup, test = mlp("digits", train=1000, batch=10, seed=1)
    (x, y), (held, _) = setup.train, setup.validation
    assert (len(x), len(held), len(test[0])) == (1000, 287, 360)
    rows = {row.numpy().tobytes() for row in x}
    assert len(rows & {row.numpy().tobytes() for row in held}) <= 1, "the digits hold a few images twice"
    assert torch.equal(mlp("digits", train=1000, batch=10, seed=1)[0].train[1], y)
    assert not torch.equal(mlp("digits", train=1000, batch=10, seed=2)[0].train[1], y)


def test_the_network_and_its_length() -> None:
    setup, _ = mlp("digits", train=1000, widths="32-16", optimizer="Adam", lr=0.1, batch=100, decay=0.2, epochs=3)
    assert [tuple(p.shape) for p in setup.model.parameters()] == [(32, 64), (32,), (16, 32), (16,), (10, 16), (10,)]
    assert setup.steps == 30
    group = setup.optimizer(setup.model.parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.2)
    assert len(mlp("digits", train=1000, widths="")[0].model) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "Adan"}, r"^mlp: expected an optimizer out of SGD, RMSprop, .*, got 'Adan'"),
        ({"train": 5000}, r"^mlp: expected training rows between the batch size, 100, and those of digits, 1150"),
        ({"batch": 2000, "train": 1000}, r"^mlp: expected training rows between the batch size, 2000"),
        ({"widths": "12-x"}, r"^mlp: expected widths such as 128-64, got '12-x'"),
        ({"widths": "-3"}, r"^mlp: expected widths such as 128-64, got '-3'"),
    ],
)
def test_wrong_arguments_are_told(changes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        mlp(**{"data": "digits", "train": 1000, **changes})


def test_missing_data_end_the_grid_with_their_own_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataFileError, match="gz"):
        run(mnist_grid("fashion-mnist", optimizers=["SGD"], lrs=[0.1], batches=[100], decays=[0.0]))


def test_a_small_grid_learns() -> None:
    grid = mnist_grid("digits", 500, optimizers=["Adam"], lrs=[0.01], batches=[10], decays=[0.0], epochs=4)
    (result,) = run(grid)
    assert result.engine == "compiled"
    assert len(result.scores) == 40
    assert result.test > 0.8
