"""Statistics are right at any scale, for any layout and dtype; the reference is float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steadygrad.signals.moments import batch_deviation, moments, range_of, share_outside, sum_of_squares

ROUNDING = 1e-5  # of float32 sums over parts of 2**17 entries


def rms(values: Tensor) -> float:
    return values.double().square().mean().sqrt().item()


@pytest.mark.parametrize("count", [1, 7, 4096, 2**17, 2**17 + 1, 300_000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_moments_agree_with_float64(count: int, dtype: torch.dtype) -> None:
    values = (torch.randn(count, generator=torch.Generator().manual_seed(count)) + 0.3).to(dtype)
    values[::3] = 0
    found, exact = moments(values), values.double()
    assert found.rms == pytest.approx(rms(values), rel=ROUNDING)
    assert found.mean == pytest.approx(exact.mean().item(), rel=ROUNDING, abs=1e-6)
    assert found.abs_max == exact.abs().max().item()
    assert found.zero_fraction == (exact == 0).double().mean().item()
    assert (found.nonfinite, found.numel) == (0, count)


@pytest.mark.parametrize(
    "scale", [1e-300, 1e-200, 1e-45, 1e-30, 1e-25, 1e-12, 1.0, 1e15, 1e20, 1e25, 1e38, 1e200, 1e300]
)
def test_no_scale_underflows_or_overflows(scale: float) -> None:
    dtype = torch.float32 if 1e-44 < scale < 3e38 else torch.float64
    values = torch.tensor([scale, -scale, 0.0, scale], dtype=dtype)
    unit = values[0].item()
    found = moments(values)
    assert found.rms == pytest.approx(unit * math.sqrt(3 / 4), rel=1e-6)
    assert found.mean == pytest.approx(unit / 4, rel=1e-6)
    assert found.abs_max == pytest.approx(unit, rel=1e-12)
    assert found.zero_fraction == 0.25


def test_a_sum_beyond_float32_gives_a_finite_mean() -> None:
    assert moments(torch.full((1000,), 3e38)).mean == pytest.approx(3e38, rel=1e-6)


def test_small_entries_beside_a_large_one_count_as_they_should() -> None:
    values = torch.full((100_000,), 1e-20)
    values[0] = 1e-3
    assert moments(values).rms == pytest.approx(1e-3 / math.sqrt(100_000), rel=1e-6)


def test_half_precision_beyond_its_own_norm() -> None:
    found = moments(torch.full((300,), 6e4, dtype=torch.float16))
    assert found.rms == pytest.approx(6e4, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 5, 200_000])
def test_nonfinite_entries_are_counted_and_left_out(bad: float, place: int) -> None:
    values = torch.full((200_001,), 2.0)
    values[place] = bad
    found = moments(values)
    assert (found.nonfinite, found.numel) == (1, 200_001)
    assert (found.mean, found.abs_max, found.zero_fraction) == (2.0, 2.0, 0.0)
    assert found.rms == pytest.approx(2.0, rel=ROUNDING)
    assert sum_of_squares(values) == pytest.approx(4.0 * 200_000, rel=ROUNDING)


def test_nothing_but_nonfinite_entries() -> None:
    found = moments(torch.tensor([math.nan, math.inf]))
    assert (found.rms, found.mean, found.abs_max, found.nonfinite, found.numel) == (0.0, 0.0, 0.0, 2, 2)
    assert sum_of_squares(torch.tensor([math.nan])) == 0.0


def test_an_empty_tensor_has_zero_moments() -> None:
    found = moments(torch.empty(0, 5))
    assert (found.rms, found.abs_max, found.zero_fraction, found.numel) == (0.0, 0.0, 0.0, 0)


def test_zeros_are_zero() -> None:
    found = moments(torch.zeros(3, 4))
    assert (found.rms, found.mean, found.zero_fraction, found.numel) == (0.0, 0.0, 1.0, 12)


def test_zeros_need_not_be_counted() -> None:
    counted, not_counted = moments(torch.tensor([0.0, 2.0])), moments(torch.tensor([0.0, 2.0]), zeros=False)
    assert math.isnan(not_counted.zero_fraction)
    assert not_counted.rms == counted.rms


def test_negative_zero_is_a_zero() -> None:
    assert moments(torch.tensor([-0.0, 1.0])).zero_fraction == 0.5


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_tensor_counts_its_unstored_entries() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 0, 3]]), torch.tensor([[1.0], [2.0], [4.0]]), (5, 1))
    assert moments(sparse) == moments(sparse.to_dense())
    assert sum_of_squares(sparse) == pytest.approx(25.0)  # the two entries of row 0 add up to 3


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_compressed_sparse_tensor_counts_its_unstored_entries() -> None:
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert moments(dense.to_sparse_csr()) == moments(dense)


def test_a_view_that_is_not_contiguous_reads_its_own_entries_only() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    assert moments(base.t()[1:]) == moments(base[:, 1:].contiguous())


def test_a_complex_entry_counts_as_two() -> None:
    found = moments(torch.tensor([3.0 + 4.0j, 0.0j]))
    assert (found.numel, found.abs_max, found.zero_fraction) == (4, 4.0, 0.5)
    assert found.rms == pytest.approx(2.5)


def test_moments_leave_the_tensor_and_its_graph_alone() -> None:
    values = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    moments(values * 1.0)
    assert values.grad is None
    assert values.tolist() == [1.0, -2.0, 0.0]


def test_batch_deviation_is_the_spread_over_the_batch() -> None:
    output = torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(0))
    expected = output.double().var(0, correction=0).mean().sqrt().item()
    assert batch_deviation(output) == pytest.approx(expected, rel=1e-6)


def test_a_tiny_deviation_around_a_large_mean_survives_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    output = 0.5 + 1e-6 * torch.randn(200, 40, generator=generator)
    expected = output.double().var(0, correction=0).mean().sqrt().item()
    assert batch_deviation(output) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e25, 3e38])
def test_batch_deviation_at_the_ends_of_float32(scale: float) -> None:
    assert batch_deviation(torch.tensor([[scale], [-scale]])) == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    "output",
    [
        torch.tensor(1.0),
        torch.ones(1, 3),
        torch.ones(4, 0),
        torch.tensor([[math.nan], [1.0]]),
        torch.tensor([[math.inf], [1.0]]),
    ],
    ids=["scalar", "one sample", "no unit", "nan", "inf"],
)
def test_batch_deviation_says_when_there_is_none(output: Tensor) -> None:
    assert batch_deviation(output) is None


def test_share_outside_counts_the_bounds_themselves() -> None:
    assert share_outside(torch.tensor([-1.0, -0.5, 0.0, 1.0, 2.0]), -1.0, 1.0) == pytest.approx(0.6)
    assert share_outside(torch.ones(5000, dtype=torch.float16), 0.0, 1.0) == 1.0


def test_range_agrees_with_float64() -> None:
    values = torch.randn(60, 9, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 9) + 1000
    found, exact = range_of(values), values.double()
    assert (found.shape, found.dtype, found.nonfinite) == ((60, 9), "float32", 0)
    assert (found.low, found.high) == (exact.min().item(), exact.max().item())
    assert found.mean == pytest.approx(exact.mean().item(), rel=1e-6)
    assert found.std == pytest.approx(exact.std(correction=0).item(), rel=1e-5)
    stds = exact.std(0, correction=0)
    assert found.feature_std_ratio == pytest.approx((stds.max() / stds.min()).item(), rel=1e-3)


def test_range_leaves_out_constant_features_and_nonfinite_entries() -> None:
    values = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 20.0], [5.0, 5.0, math.nan]])
    found = range_of(values)
    assert (found.low, found.high, found.nonfinite) == (0.0, 20.0, 1)
    assert found.mean == pytest.approx(5.5)
    assert found.feature_std_ratio is None  # one finite feature that is not constant


@pytest.mark.parametrize(
    ("values", "low", "high", "mean"),
    [
        (torch.tensor([True, False]), 0.0, 1.0, 0.5),
        (torch.tensor([0, 255], dtype=torch.uint8), 0.0, 255.0, 127.5),
        (torch.tensor([2**40, 2**40 + 2]), 2.0**40, 2.0**40 + 2, 2.0**40 + 1),
        (torch.tensor([1e-30, 3e-30]), 1e-30, 3e-30, 2e-30),
        (torch.tensor([-3e38, 3e38]), -3e38, 3e38, 0.0),
    ],
    ids=["bool", "uint8", "int64", "tiny", "huge"],
)
def test_range_of_any_dtype_and_scale(values: Tensor, low: float, high: float, mean: float) -> None:
    found = range_of(values)
    assert found.low == pytest.approx(low, rel=1e-6)
    assert found.high == pytest.approx(high, rel=1e-6)
    assert found.mean == pytest.approx(mean, rel=1e-6, abs=1e-30)
    assert found.std == pytest.approx((high - low) / 2, rel=1e-6)


@pytest.mark.parametrize("values", [torch.empty(0), torch.tensor([math.nan])], ids=["empty", "nan"])
def test_range_without_a_finite_entry_is_nan(values: Tensor) -> None:
    found = range_of(values)
    assert all(math.isnan(number) for number in (found.low, found.high, found.mean, found.std))
    assert found.nonfinite == values.numel()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_nothing_is_never_a_negative_zero(zero: float) -> None:
    read = moments(torch.full((4, 3), zero))
    for size in (batch_deviation(torch.full((4, 3), zero)), batch_deviation(torch.ones(4, 3)), read.rms, read.abs_max):
        assert str(size) == "0.0"
