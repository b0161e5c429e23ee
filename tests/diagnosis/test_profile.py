"""Profiles of hand-made measurements."""

from __future__ import annotations

import math

import pytest

from steadygrad.diagnosis.profile import Stage, Trend, paths, trend
from steadygrad.records import Blueprint, Layer, LayerStats, Moments, Observation, Range, Role


def path_of(*sizes: float | None) -> tuple[Stage, ...]:
    """A path whose signals are ``sizes`` from input to output and whose gradients are the same from output to input."""
    names = [f"l{index}" for index in range(len(sizes) - 1)] + ["output"]
    return tuple(Stage(*stage) for stage in zip(names, sizes, sizes[::-1], strict=True))


def moments(rms: float, numel: int = 40) -> Moments:
    return Moments(rms, 0.0, rms, 0.0, 0, numel)


def graph(*layers: tuple[str, Role, tuple[int, ...], float], entries: int = 1) -> tuple[Blueprint, Observation]:
    """A network of 4 samples; each layer as name, role, what it follows, and both its signal and gradient RMS."""
    blueprint = Blueprint(
        tuple(Layer(name, name, role.value, role, follows) for name, role, follows, _ in layers),
        head_layer=len(layers) - 1,
        entries=(Range((4, 10), "float32", -1, 1, 0.0, 2.0),) * entries,
        batch=4,
    )
    stats = tuple(LayerStats(name, moments(rms), rms, output_grad=moments(rms)) for name, _, _, rms in layers)
    return blueprint, Observation(1.0, stats, 1.0, output_signal=stats[-1].signal)


def followed(*sizes: float | None, backward: bool = False, growing: bool = False) -> Trend:
    found = trend(path_of(*sizes), backward, growing)
    assert found is not None
    return found


def test_forward_a_change_belongs_to_the_layer_that_the_signal_passed() -> None:
    found = followed(1.0, 1.0, 1e-4, 1e-4)
    assert (found.layer, found.place, found.steps) == ("l1", "output", 3)
    assert (found.decades, found.gain, found.share) == pytest.approx((-4.0, 1e-4, 1.0))


def test_backward_a_change_belongs_to_the_upper_layer() -> None:
    # Gradients from the output down: 1, 1, 1e-4, 1e-4; the gradient leaves l1 towards l0 at 1e-4.
    found = followed(1.0, 1.0, 1e-4, 1e-4, backward=True)
    assert (found.layer, found.place) == ("l1", "l0")
    assert found.decades == pytest.approx(-4.0)


def test_the_first_layer_out_of_band_is_named_where_none_does_most_of_it() -> None:
    found = followed(1.0, 0.9, 0.27, 0.081, 0.0243)
    assert found.layer == "l1"
    assert found.share == pytest.approx(math.log(0.3) / math.log(0.0243))


def test_the_layer_that_does_most_of_it_goes_before_an_earlier_small_offender() -> None:
    found = followed(1.0, 0.4, 0.4e-6, 0.4e-6)
    assert (found.layer, found.share) == ("l1", pytest.approx(6 / (6 - math.log10(0.4))))


def test_many_small_losses_name_the_largest() -> None:
    assert followed(1.0, 0.8, 0.5, 0.4).layer == "l1"


def test_growth_ends_at_the_peak() -> None:
    found = followed(1.0, 1e3, 1e3, 1e-3, growing=True)
    assert (found.layer, found.place, found.steps) == ("l0", "l1", 1)
    assert found.decades == pytest.approx(3.0)


def test_a_layer_that_lets_nothing_through_is_guilty_for_certain() -> None:
    found = followed(1.0, 0.4, 0.0, 0.0)
    assert (found.layer, found.share, found.gain) == ("l1", 1.0, 0.0)
    assert found.decades == -math.inf


@pytest.mark.parametrize(("backward", "end"), [(False, 1e-6), (True, 1e-36)])
def test_a_zero_by_underflow_is_nobodys_fault(backward: bool, end: float) -> None:
    steps = [end ** (index / 6) for index in range(7)]
    sizes = [*steps, 0.0]
    found = trend(path_of(*sizes), backward, growing=False)
    assert found is not None
    assert found.decades == -math.inf
    assert found.share == pytest.approx(1 / 6)


@pytest.mark.parametrize("sizes", [(1.0, 0.1), (None, 1.0, 0.1), (0.0, 0.0, 0.0), (None, None, None)])
def test_too_little_to_follow(sizes: tuple[float | None, ...]) -> None:
    assert trend(path_of(*sizes), backward=False, growing=False) is None


def test_a_change_across_an_unseen_stage_belongs_to_the_first_layer_of_the_gap() -> None:
    assert followed(1.0, None, 1e-4, 1e-4).layer == "l0"


def test_a_chain_is_one_path_from_entry_to_output() -> None:
    linear, act = Role.LINEAR, Role.ACTIVATION
    (path,) = paths(*graph(("a", linear, (), 3.0), ("f", act, (0,), 5.0), ("b", linear, (1,), 7.0)))
    # Norm of a gradient per sample: rms * sqrt(40 / 4).
    norm = math.sqrt(10)
    assert path == (
        Stage("a", 2.0, pytest.approx(3 * norm)),
        Stage("b", 5.0, pytest.approx(5 * norm)),
        Stage("output", 7.0, pytest.approx(7 * norm)),
    )


def test_a_residual_network_has_one_path_through_every_branch() -> None:
    linear = Role.LINEAR
    (path,) = paths(
        *graph(("a", linear, (), 1), ("b", linear, (0,), 1), ("c", linear, (0, 1), 1), ("d", linear, (0, 1, 2), 1))
    )
    assert [stage.name for stage in path] == ["a", "b", "c", "d", "output"]


def test_a_signal_is_the_largest_of_what_was_joined_and_the_gradient_that_of_the_path() -> None:
    linear = Role.LINEAR
    (path,) = paths(*graph(("a", linear, (), 9.0), ("b", linear, (0,), 2.0), ("c", linear, (0, 1), 1.0)))
    assert path[2].signal == 9.0
    assert path[2].grad == pytest.approx(2.0 * math.sqrt(10))


def test_every_branch_has_a_path() -> None:
    linear = Role.LINEAR
    layers = [("a", linear, (), 1.0), ("b", linear, (), 1.0), ("c", linear, (1,), 1.0), ("d", linear, (0, 2), 1.0)]
    found = [[stage.name for stage in path] for path in paths(*graph(*layers, entries=2))]
    assert found == [["b", "c", "d", "output"], ["a", "d", "output"]]


def test_entries_that_do_not_pair_up_with_first_layers_are_left_out() -> None:
    linear = Role.LINEAR
    (path,) = paths(*graph(("a", linear, (), 1.0), ("b", linear, (0,), 1.0), entries=0))
    assert [stage.signal for stage in path] == [None, 1.0, 1.0]


def test_a_network_without_weight_layers_has_no_path() -> None:
    assert paths(*graph(("e", Role.EMBEDDING, (), 1.0))) == []
