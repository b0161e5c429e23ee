"""Compiled sums: right against float64, and done without where numba is missing or broken."""

from __future__ import annotations

import math

import pytest
import torch

from steadygrad.signals import kernel
from steadygrad.signals.kernel import kernel_pays, squares_kernel, steps_kernel

SIZES = [0, 1, 31, 1000, 200_003]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_sums_of_squares_are_those_of_float64(scale: float) -> None:
    tensors = [scale * torch.randn(size, generator=torch.Generator().manual_seed(0)) for size in SIZES]
    pytest.importorskip("numba")
    compiled = squares_kernel()
    assert compiled is not None
    truth = [tensor.double().square().sum().item() for tensor in tensors]
    assert compiled(tensors) == pytest.approx(truth, rel=1e-9)
    assert compiled([]) == []


def test_sums_of_squares_show_what_is_not_finite() -> None:
    pytest.importorskip("numba")
    compiled = squares_kernel()
    assert compiled is not None
    tensors = [torch.ones(100), torch.tensor([1.0, math.inf]), torch.tensor([math.nan, 2.0])]
    assert compiled(tensors) == [100.0, math.inf, pytest.approx(math.nan, nan_ok=True)]


@pytest.mark.parametrize("step", [0.0, 1e-30, 1e-7, 3.0])
def test_steps_are_those_made_and_copies_follow(step: float) -> None:
    pytest.importorskip("numba")
    compiled = steps_kernel()
    assert compiled is not None
    generator = torch.Generator().manual_seed(0)
    copies = [torch.randn(size, generator=generator) for size in SIZES]
    tensors = [copy + step * torch.randn(copy.shape, generator=generator) for copy in copies]
    made = [tensor.double() - copy.double() for tensor, copy in zip(tensors, copies, strict=True)]
    moved, squares = compiled(tensors, copies)
    assert moved == pytest.approx([each.square().sum().item() for each in made], rel=1e-5)
    assert squares == pytest.approx([tensor.double().square().sum().item() for tensor in tensors], rel=1e-9)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
    assert compiled(tensors, copies) == ([0.0] * len(SIZES), squares)


def test_steps_leave_out_what_is_not_finite() -> None:
    pytest.importorskip("numba")
    compiled = steps_kernel()
    assert compiled is not None
    tensor, copy = torch.tensor([3.0, math.nan, math.inf, 4.0] * 50), torch.tensor([1.0, 1.0, 1.0, math.inf] * 50)
    assert compiled([tensor], [copy]) == ([200.0], [1250.0])
    assert torch.equal(copy.nan_to_num(), tensor.nan_to_num())
    assert compiled([tensor], [copy])[0] == [0.0]


@pytest.mark.parametrize("broken", [ImportError, RuntimeError])
@pytest.mark.parametrize("which", ["squares", "steps"])
def test_a_numba_that_does_not_work_is_done_without(broken, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(numba: object, cached: bool) -> None:
        raise broken

    monkeypatch.setattr(kernel, f"_compile_{which}", refuse)
    assert getattr(kernel, f"{which}_kernel").__wrapped__() is None


@pytest.mark.parametrize(
    ("threads", "numel", "pays"), [(1, 9, False), (1, 10**9, True), (4, 99, True), (4, 100, False)]
)
def test_a_kernel_of_one_thread_leaves_huge_sets_to_several(threads, numel, pays, monkeypatch) -> None:
    monkeypatch.setattr(kernel, "_HUGE", 400)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert kernel_pays(numel, least=10) is pays
