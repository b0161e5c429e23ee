"""Clips give the numbers of their references, and are right where those are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.remedies import (
    Decaying,
    Deeds,
    Gradients,
    GradientTransform,
    adaptive_clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_parameter_norm,
    clip_by_value,
    global_norm,
    norms,
    project_gradients,
)
from steadygrad.remedies.tally import deeds


def parameters(*gradients: Tensor | None) -> list[nn.Parameter]:
    found = []
    for gradient in gradients:
        parameter = nn.Parameter(
            torch.zeros(3) if gradient is None else torch.zeros(gradient.shape, dtype=gradient.dtype)
        )
        parameter.grad = gradient
        found.append(parameter)
    return found


def apply(transform: GradientTransform, owners: Sequence[nn.Parameter]) -> None:
    with torch.no_grad():
        gradients = Gradients(owners)
        transform.update(gradients, transform.init(owners), owners)
        gradients.write()


def drawn() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((50, 20), (20,), (7, 3, 2, 2))]


@pytest.mark.parametrize("max_norm", [0.7, 1000.0])
def test_global_norm_agrees_with_torch_where_torch_is_right(max_norm: float) -> None:
    ours, theirs = parameters(*drawn()), parameters(*drawn())
    norm = nn.utils.clip_grad_norm_(theirs, max_norm)
    assert global_norm(p.grad for p in ours) == pytest.approx(norm.item(), rel=1e-6)
    apply(clip_by_global_norm(max_norm), ours)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("max_value", [0.5, 100.0])
@pytest.mark.parametrize("make", [clip_by_value, lambda c: project_gradients(c, norm="linf")])
def test_value_clipping_is_torchs_bit_for_bit(make, max_value: float) -> None:
    ours, theirs = parameters(*drawn()), parameters(*drawn())
    nn.utils.clip_grad_value_(theirs, max_value)
    apply(make(max_value), ours)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_norm_and_rms_of_each_parameter() -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.full((4, 4), 2.0)]
    by_norm, by_rms = parameters(*(g.clone() for g in gradients)), parameters(*(g.clone() for g in gradients))
    apply(clip_by_parameter_norm(1.0), by_norm)
    apply(clip_by_block_rms(1.0), by_rms)
    torch.testing.assert_close(by_norm[0].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(by_norm[2].grad, torch.full((4, 4), 0.25))
    torch.testing.assert_close(by_rms[0].grad, gradients[0] / (5 / math.sqrt(2)))
    torch.testing.assert_close(by_rms[2].grad, torch.ones(4, 4))
    assert torch.equal(by_norm[1].grad, gradients[1])
    assert torch.equal(by_rms[1].grad, gradients[1])


def test_projection_onto_the_l1_ball_finds_the_nearest_point() -> None:
    owners = parameters(torch.tensor([3.0, -1.0]), torch.tensor([[0.5], [-2.0]]))
    apply(project_gradients(3.0, norm="l1"), owners)
    torch.testing.assert_close(owners[0].grad, torch.tensor([2.0, 0.0]))  # all shrink by 1
    torch.testing.assert_close(owners[1].grad, torch.tensor([[0.0], [-1.0]]))
    apply(project_gradients(100.0, norm="l1"), owners)
    torch.testing.assert_close(owners[0].grad, torch.tensor([2.0, 0.0]))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1e20, torch.float32),
        (3e38, torch.float32),
        (6e4, torch.float16),
        (1e300, torch.float64),
        (3e38, torch.bfloat16),
    ],
)
def test_huge_finite_gradients_are_clipped_not_zeroed(value: float, dtype: torch.dtype) -> None:
    (ours,), (theirs,) = parameters(torch.full((300,), value, dtype=dtype)), parameters(torch.full((300,), 1e20))
    apply(clip_by_global_norm(1.0), [ours])
    assert ours.grad.dtype is dtype
    torch.testing.assert_close(ours.grad, torch.full((300,), 300**-0.5, dtype=dtype))
    nn.utils.clip_grad_norm_([theirs], 1.0)
    assert (theirs.grad == 0).all()  # torch's own loses the whole gradient


def test_half_precision_norms_do_not_overflow() -> None:
    gradient = torch.full((100_000,), 300.0, dtype=torch.float16)
    assert torch._foreach_norm([gradient])[0] == math.inf
    assert global_norm([gradient]) == pytest.approx(300 * math.sqrt(100_000), rel=1e-6)


@pytest.fixture(params=["compiled", "torch"])
def either_kernel(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the kernel that numba compiles and with torch alone."""
    if request.param == "torch":
        monkeypatch.setattr(norms, "squares_kernel", lambda: None)
    monkeypatch.setattr(norms, "kernel_pays", lambda numel, least: True)


@pytest.mark.usefixtures("either_kernel")
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 3e30])
@pytest.mark.parametrize("numel", [3, 1000, 9408, 50_001, 1_200_003])  # rows of 448, of 1024 with a rest
def test_norms_of_equal_values_do_not_drift(value: float, numel: int) -> None:
    tensors = [torch.full((numel,), value), torch.zeros(5)]
    exact = tensors[0][0].item() * math.sqrt(numel)
    assert norms.norms_of(tensors) == [pytest.approx(exact, rel=1e-6), 0.0]


@pytest.mark.usefixtures("either_kernel")
@pytest.mark.parametrize("threads", [1, 2])
def test_norms_by_any_number_of_threads_in_any_layout(threads: int) -> None:
    image = torch.randn(3, 40, 40, 20, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    tensors = [image, image.squeeze(), image[:, ::2], torch.empty(0, 4), image.double(), image.bfloat16()]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = norms.norms_of(tensors)
    finally:
        torch.set_num_threads(before)
    assert found == pytest.approx([tensor.double().norm().item() for tensor in tensors], rel=1e-6)


@pytest.mark.usefixtures("either_kernel")
@pytest.mark.parametrize("position", [0, 5_000, 99_999])
def test_norms_show_what_is_not_finite(position: int) -> None:
    bad, worse = torch.ones(100_000), torch.ones(100_000)
    bad[position], worse[position] = math.inf, math.nan
    assert norms.norms_of([bad, worse]) == [math.inf, pytest.approx(math.nan, nan_ok=True)]


@pytest.mark.slow
def test_norms_over_many_values_stay_exact() -> None:
    values = torch.randn(38_600_000, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.vector_norm(values.double()).item()
    assert abs(torch.linalg.vector_norm(values).item() / exact - 1) > 1e-3
    assert global_norm([values]) == pytest.approx(exact, rel=1e-6)


def test_any_layout_in_memory_has_the_same_norm() -> None:
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for tensor in (images.to(memory_format=torch.channels_last), images.mT, images.double(), images[:, :, ::2]):
        expected = tensor.double().square().sum().sqrt().item()
        assert global_norm([tensor]) == pytest.approx(expected, rel=1e-6)
    assert global_norm([torch.complex(torch.tensor([3.0]), torch.tensor([4.0]))]) == pytest.approx(5)
    assert global_norm([]) == global_norm([torch.zeros(0, 3)]) == 0


def test_tiny_gradients_have_a_norm_and_stay_as_they_are() -> None:
    gradient = torch.full((1000,), 1e-25)
    assert global_norm([gradient]) == pytest.approx(1e-25 * math.sqrt(1000), rel=1e-6)
    (parameter,) = parameters(gradient.clone())
    apply(clip_by_global_norm(1.0), [parameter])
    assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("make", [clip_by_global_norm, clip_by_parameter_norm, clip_by_block_rms, adaptive_clip])
def test_non_finite_gradients_are_left_alone(make, bad: float) -> None:
    first, second = parameters(torch.tensor([bad, 5.0]), torch.tensor([1e-9]))
    apply(make(1.0), [first, second])
    assert not math.isfinite(global_norm([first.grad, second.grad]))
    assert first.grad[1] == 5
    assert second.grad == 1e-9


def test_sparse_missing_shared_and_expanded_gradients() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()  # row 1 arrives twice, uncoalesced
    idle, one, two, flat = parameters(None, torch.ones(3), torch.ones(3), torch.ones(1).expand(4))
    two.grad = one.grad
    assert global_norm([embedding.weight.grad]) == pytest.approx(math.sqrt(10))
    apply(clip_by_global_norm(1.0), [idle, embedding.weight, one, two, flat])
    assert idle.grad is None
    dense = embedding.weight.grad.to_dense()
    torch.testing.assert_close(dense[[1, 3], 0] * math.sqrt(20), torch.tensor([2.0, 1.0]))
    for parameter in (one, two, flat):
        torch.testing.assert_close(parameter.grad * math.sqrt(20), torch.ones_like(parameter))


def agc_inputs() -> list[nn.Parameter]:
    weights = [
        torch.arange(-6.0, 6.0).view(3, 4) / 7,
        torch.arange(0.0, 8.0).view(2, 2, 1, 2) / 3,
        torch.tensor([0.3, -0.2, 0.5]),
        torch.zeros(2, 3),
    ]
    gradients = [
        torch.arange(12.0).view(3, 4).flip(0) / 3 - 1,
        torch.full((2, 2, 1, 2), 1e-3),
        torch.tensor([0.1, 0.7, -0.4]),
        torch.arange(6.0).view(2, 3) / 11,
    ]
    owners = [nn.Parameter(weight) for weight in weights]
    for owner, gradient in zip(owners, gradients, strict=True):
        owner.grad = gradient
    return owners


# What timm.utils.agc.adaptive_clip_grad(clip_factor=0.1), commit 15d1dbc, makes of `agc_inputs` in float32.
TIMM = [
    [
        *(0.050216514617204666, 0.06025981530547142, 0.07030311226844788, 0.08034642040729523),
        *(0.006388767622411251, 0.012777532450854778, 0.01916630007326603, 0.025555064901709557),
        *(-0.08416976779699326, -0.05611317604780197, -0.028056588023900986, 0.0),
    ],
    [0.0010000000474974513] * 8,
    [0.00758786965161562, 0.053115084767341614, -0.03035147860646248],
    [
        *(0.0, 4.472136060940102e-05, 8.944272121880203e-05),
        *(4.2426410800544545e-05, 5.6568544096080586e-05, 7.071068102959543e-05),
    ],
]


def test_adaptive_clipping_is_timms_bit_for_bit() -> None:
    owners = agc_inputs()
    apply(adaptive_clip(0.1), owners)
    assert [owner.grad.flatten().tolist() for owner in owners] == TIMM


@pytest.mark.parametrize("bad", [None, math.nan])
def test_adaptive_clipping_in_blocks_is_timms_bit_for_bit(monkeypatch, bad: float | None) -> None:
    monkeypatch.setattr("steadygrad.remedies.adaptive_clipping._BLOCK", 1 << 14)
    generator = torch.Generator().manual_seed(0)
    gradient, weight = torch.randn(2, 90, 1000, generator=generator)
    if bad is not None:
        gradient[3, 5] = bad
    limits = weight.norm(2, dim=1, keepdim=True).clamp_(min=1e-3).mul_(0.999)
    norms = gradient.norm(2, dim=1, keepdim=True)
    clipped = gradient * (limits / norms.clamp(min=1e-6))
    expected = torch.where((norms < limits) | norms.isnan(), gradient, clipped)
    owner = nn.Parameter(weight)
    owner.grad = gradient.clone()
    transform, gradients = adaptive_clip(0.999), Gradients([owner])
    with torch.no_grad():
        state = transform.update(gradients, transform.init([owner]), [owner])
    assert torch.equal(owner.grad.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert state["acted"] == 1
    assert len(state["recent"]) == (bad is None)


def test_adaptive_clipping_of_huge_gradients_and_excluded_parameters() -> None:
    owners = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))]
    for owner in owners:
        owner.grad = torch.tensor([[1e30, 1e30, 0.0], [1e-9, 0.0, 0.0]])
    transform = adaptive_clip(0.1, exclude=iter(owners[1:]))
    apply(transform, owners)
    expected = 0.1 * math.sqrt(3) / math.sqrt(2)
    torch.testing.assert_close(owners[0].grad[0], torch.tensor([expected, expected, 0.0]))
    assert owners[0].grad[1, 0] == 1e-9
    assert owners[1].grad[0, 0] == 1e30


def test_adaptive_clipping_looks_up_the_rows_of_a_sparse_gradient() -> None:
    sparse, dense = (nn.Embedding(5, 2, sparse=flag) for flag in (True, False))
    dense.load_state_dict(sparse.state_dict())
    for embedding in (sparse, dense):
        embedding(torch.tensor([1, 1, 3])).sum().backward()
        apply(adaptive_clip(0.1), [embedding.weight])
    torch.testing.assert_close(sparse.weight.grad.to_dense(), dense.weight.grad)


def test_thresholds_follow_the_step() -> None:
    (owner,) = parameters(torch.tensor([3.0, 4.0]))
    transform = clip_by_global_norm(Decaying(2.0, decay=0.5, least=0.4))
    state, norms = transform.init([owner]), []
    for _ in range(4):
        owner.grad = torch.tensor([3.0, 4.0])
        with torch.no_grad():
            gradients = Gradients([owner])
            state = transform.update(gradients, state, [owner])
            gradients.write()
        norms.append(owner.grad.norm().item())
    assert norms == pytest.approx([2.0, 1.0, 0.5, 0.4])


@pytest.mark.parametrize(
    "make",
    [
        clip_by_global_norm,
        clip_by_value,
        clip_by_parameter_norm,
        clip_by_block_rms,
        adaptive_clip,
        *(partial(project_gradients, norm=norm) for norm in ("l1", "l2", "linf")),
    ],
)
def test_the_suggested_threshold_acts_on_one_step_in_twenty(make) -> None:
    sizes = torch.randn(100, generator=torch.Generator().manual_seed(0)).exp().tolist()
    owners = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]

    def trained(bound: float) -> Deeds:
        transform = make(bound)
        state = transform.init(owners)
        for size in sizes:
            for owner in owners:
                owner.grad = torch.full_like(owner, size)
            with torch.no_grad():
                state = transform.update(Gradients(owners), state, owners)
        return next(deeds(transform.name, state))

    suggestion = trained(1e-3).suggestion  # what it clips hard meanwhile does not blur what it saw
    assert trained(suggestion).acted == 5


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_is_positive_now_and_later(bound: float) -> None:
    with pytest.raises(UsageError, match=r"clip_by_global_norm: expected max_norm above 0 and finite"):
        clip_by_global_norm(bound)
    with pytest.raises(UsageError, match=r"clip_by_value: expected max_value above 0 and finite"):
        apply(clip_by_value(lambda step: bound), parameters(torch.ones(2)))


def test_refused_settings() -> None:
    with pytest.raises(UsageError, match=r"expected norm to be 'l1', 'l2' or 'linf', got 'l3'"):
        project_gradients(1.0, norm="l3")
    with pytest.raises(UsageError, match=r"Decaying: expected decay within \(0, 1\], got 1.5"):
        Decaying(1.0, decay=1.5, least=0.1)
