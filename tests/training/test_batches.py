"""Whatever holds the data becomes batches; what cannot is refused in one sentence."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steadygrad.errors import SetupError
from steadygrad.training import TrainingSetup, first_batch, is_arrays, move, one_pass, row_count, split, target_of

CPU = torch.device("cpu")
X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10)
Pair = namedtuple("Pair", "x y")


def batches(data: Any, size: int = 4, seed: int | None = None) -> list[Any]:
    return list(one_pass(data, size, CPU, seed))


def setup_of(train: Any, **settings: Any) -> TrainingSetup:
    return TrainingSetup(nn.Linear(2, 3), nn.CrossEntropyLoss(), train, batch_size=4, **settings)


def test_tensors_come_in_order_and_whole_without_a_seed() -> None:
    found = batches((X, Y))
    assert [len(y) for _, y in found] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in found]), X)


def test_a_seed_shuffles_and_leaves_out_the_rest() -> None:
    found = batches((X, Y), seed=3)
    rows = torch.cat([y for _, y in found])
    assert [len(y) for _, y in found] == [4, 4]
    assert len(set(rows.tolist())) == 8
    assert rows.tolist() != sorted(rows.tolist())
    assert all(torch.equal(x, X[y]) for x, y in found)


def test_the_order_follows_from_the_seed_alone() -> None:
    first = batches((X, Y), seed=3)
    torch.manual_seed(99)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, batches((X, Y), seed=3), strict=True))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(first, batches((X, Y), seed=4), strict=True))


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    assert [len(y) for _, y in batches((X, Y), size=64, seed=0)] == [10]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.ones((3, 2), np.float64), torch.float32),
        (np.ones((3, 2), np.float16), torch.float32),
        (np.ones((3, 2), ">f4"), torch.float32),
        (np.ones((3, 2), np.int32), torch.int64),
        (np.ones((3, 2), np.uint8), torch.int64),
        (np.ones((3, 2), ">i2"), torch.int64),
        (np.ones((3, 2), np.bool_), torch.bool),
        (np.ones((3, 2), np.complex64), torch.complex64),
        (np.ones((6, 4))[::-2, ::2], torch.float32),
        (np.broadcast_to(np.ones(2), (3, 2)), torch.float32),
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_of_any_kind_become_tensors(array: np.ndarray, dtype: torch.dtype) -> None:
    ((found, _),) = batches((array, np.arange(3)))
    assert (found.dtype, tuple(found.shape)) == (dtype, (3, 2))
    assert bool((found == 1).all())


def test_floating_arrays_take_the_dtype_of_the_model() -> None:
    arrays = (np.ones((4, 2)), np.array([0, 1, 2, 0]))
    setup = setup_of(arrays)
    setup.model.double()
    x, y = first_batch(setup)
    assert (x.dtype, y.dtype) == (torch.float64, torch.int64)


def test_a_tensor_keeps_its_dtype() -> None:
    (x, _) = first_batch(setup_of((X.double(), Y)))
    assert x.dtype == torch.float64


def test_a_dict_of_arrays_gives_dicts() -> None:
    (found, *_) = batches({"a": X, "b": np.arange(10.0), "y": Y})
    assert {key: tuple(value.shape) for key, value in found.items()} == {"a": (4, 2), "b": (4,), "y": (4,)}
    assert torch.equal(target_of(found), Y[:4])


def test_a_named_tuple_gives_named_tuples() -> None:
    (found, *_) = batches(Pair(X, Y))
    assert isinstance(found, Pair)
    assert torch.equal(found.y, Y[:4])


@pytest.mark.parametrize(
    "data",
    [
        [(X[:4], Y[:4]), (X[4:], Y[4:])],
        ((X[:4], Y[:4]), (X[4:], Y[4:])),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        [OrderedDict(x=X[:4].numpy(), label=Y[:4].numpy())],
        [Pair(X[:4], Y[:4])],
    ],
    ids=["list", "tuple", "loader", "dicts", "named tuples"],
)
def test_batches_of_ones_own_come_as_they_are(data: Any) -> None:
    assert not is_arrays(data)
    found = batches(data, size=1)
    assert row_count(found[0]) == 4
    assert torch.equal(target_of(found[0]), Y[:4])


def test_other_objects_in_a_batch_are_passed_through() -> None:
    ((words, x, _),) = batches([(["a", "b"], X[:2], None)])
    assert words == ["a", "b"]
    assert x is X[:2] or torch.equal(x, X[:2])


def test_an_object_that_can_move_moves_itself() -> None:
    class Graph:
        moved: Any = None

        def to(self, device: torch.device) -> Graph:
            self.moved = device
            return self

    assert move(Graph(), CPU).moved == CPU


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:9]), "expected tensors or arrays of equal length, got lengths 10, 9"),
        ({"x": X, "y": Y[:9]}, "expected tensors or arrays of equal length, got lengths 10, 9"),
        ((X, [0] * 10), r"expected tensors or arrays, or batches of them, got \(float32\[10, 2\], \(int, int"),
        ({"x": [1.0], "y": [1]}, r"got \{x: \(float\), y: \(int\)\}"),
        ({}, r"got \{\}"),
        (X, r"got float32\[10, 2\]. Pass a tuple or dict"),
        (X.numpy(), r"got float32\[10, 2\]"),
        ("train.csv", "got str"),
        (["train.csv"], "expected batches of tensors, got one of type str"),
        (5, "expected something to iterate over, got int"),
        (None, "expected something to iterate over, got NoneType"),
        (lambda: iter([(X, Y)]), "expected something to iterate over, got function"),
        ((np.array(["a", "b"]), np.arange(2)), "expected numbers, got an array of dtype <U1"),
        ((np.array([None, 1]), np.arange(2)), "expected numbers, got an array of dtype object"),
        ((X[:0], Y[:0]), "expected at least one sample, got none"),
        ([], "expected at least one batch, got nothing"),
        ([(X[:0], Y[:0])], "expected at least one sample, got an empty batch"),
    ],
)
def test_what_is_no_data_is_refused_in_one_sentence(data: Any, message: str) -> None:
    with pytest.raises(SetupError, match=rf"^data: .*{message}") as caught:
        first_batch(setup_of(data))
    assert "\n" not in str(caught.value)


def test_a_generator_that_has_run_dry_is_told() -> None:
    used = iter([(X, Y)])
    list(used)
    with pytest.raises(SetupError, match="not a generator that has run dry"):
        first_batch(setup_of(used))


def test_a_data_set_that_raises_is_blamed() -> None:
    class Broken(Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Tensor:
            raise OSError("no such image")

    with pytest.raises(SetupError, match=r"^data: reading a batch failed: OSError: no such image"):
        first_batch(setup_of(DataLoader(Broken())))


def test_one_row_is_a_batch() -> None:
    assert row_count(first_batch(setup_of((X[:1], Y[:1])))) == 1


def test_the_first_batch_lies_where_the_model_lies() -> None:
    x, _ = first_batch(setup_of((X, Y), device="meta"))
    assert x.device == CPU


def test_the_first_batch_leaves_the_loaders_generator_as_it_was() -> None:
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True, generator=generator)
    setup = setup_of(loader)
    before, own = torch.get_rng_state(), generator.get_state()
    first = first_batch(setup)
    assert torch.equal(first_batch(setup)[1], first[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), own)


@pytest.mark.parametrize(
    ("batch", "rows", "target"),
    [
        (X, 10, None),
        ((X,), 10, None),
        ((X, X, Y), 10, Y),
        ({"x": X, "label": Y}, 10, Y),
        ({"x": X}, 10, None),
        (["words", torch.tensor(3.0)], 0, torch.tensor(3.0)),
    ],
)
def test_rows_and_target_of_a_batch(batch: Any, rows: int, target: Tensor | None) -> None:
    assert row_count(batch) == rows
    found = target_of(batch)
    assert found is target or torch.equal(found, target)


def test_a_split_parts_the_rows_and_keeps_them_together() -> None:
    (x, y), (x_held, y_held) = split((X, Y), 0.3, seed=1)
    assert (len(y), len(y_held)) == (7, 3)
    assert sorted(torch.cat([y, y_held]).tolist()) == list(range(10))
    assert torch.equal(x, X[y])
    assert torch.equal(x_held, X[y_held])
    assert torch.equal(split((X, Y), 0.3, seed=1)[1][1], y_held)


def test_a_split_of_batches_holds_out_every_kth() -> None:
    data = [(X[i : i + 1], Y[i : i + 1]) for i in range(10)]
    kept, held = split(data, 0.2, seed=0)
    assert (len(kept), len(held)) == (8, 2)
    assert all(id(batch) not in set(map(id, kept)) for batch in held)


@pytest.mark.parametrize("data", [(X[:1], Y[:1]), [(X, Y)]])
def test_what_cannot_be_split_serves_twice(data: Any) -> None:
    kept, held = split(data, 0.2, seed=0)
    assert len(kept) == len(held) == len(data)


def test_an_endless_stream_is_split_after_so_many_batches() -> None:
    def stream() -> Iterator[Any]:
        while True:
            yield X, Y

    kept, held = split(stream(), 0.25, seed=0, most_batches=8)
    assert (len(kept), len(held)) == (6, 2)
