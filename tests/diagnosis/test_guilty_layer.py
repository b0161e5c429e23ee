"""One sick layer in an otherwise healthy network is named, with a confidence near 1; alike layers share the blame."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.records import Diagnosis, Severity

from .networks import FEATURES, Function, Residual, Towers, biased, inserted, plain, scaled, setup

DEPTH = 12


def named(diagnosis: Diagnosis, code: str) -> tuple[str | None, float]:
    finding = next(finding for finding in diagnosis.findings if finding.code == code)
    return finding.layer, finding.confidence


@pytest.mark.parametrize("layer", ["0", "2", "12", "20", "22"])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_layer_of_wrong_scale(layer: str, factor: float) -> None:
    diagnosis = diagnose(setup(scaled(plain(DEPTH), layer, factor)))
    assert diagnosis.guilty == layer
    assert diagnosis.confidence == pytest.approx(1.0, abs=0.1)
    assert named(diagnosis, "SG401") == (layer, pytest.approx(1.0, abs=0.1))
    # Each statistic that passes the layer names the same one.
    assert {finding.layer for finding in diagnosis.findings} == {layer} | ({None} if factor > 1 else set())


@pytest.mark.parametrize("position", [0, 5, 10])
def test_a_dead_layer(position: int) -> None:
    diagnosis = diagnose(setup(biased(plain(DEPTH), f"{2 * position}", -1000.0)))
    assert diagnosis.guilty == f"{2 * position}"
    assert diagnosis.confidence == 1.0
    # The layers after it are dead too, but only because nothing comes in.
    assert named(diagnosis, "SG301") == (f"{2 * position + 1}", 1.0)


@pytest.mark.parametrize("position", [0, 5, 10])
def test_a_saturated_layer(position: int) -> None:
    diagnosis = diagnose(setup(scaled(plain(DEPTH, nn.Tanh, 5 / 3), f"{2 * position}", 100)))
    assert (diagnosis.guilty, diagnosis.confidence) == (f"{2 * position + 1}", 1.0)


@pytest.mark.parametrize("position", [1, 5, 11])
@pytest.mark.parametrize(
    ("function", "code"),
    [
        pytest.param(torch.sign, "SG104", id="a step blocks the gradient"),
        pytest.param(torch.log, "SG203", id="NaN forward"),
        pytest.param(lambda x: x + (0 * x).abs().sqrt(), "SG204", id="NaN backward"),
    ],
)
def test_a_function_between_two_layers(position: int, function: Callable, code: str) -> None:
    """The layer that reads the function is named, and the message names the one before it."""
    diagnosis = diagnose(setup(inserted(position, Function(function), DEPTH)))
    assert [finding.code for finding in diagnosis.findings] == [code]
    assert diagnosis.guilty in (f"{2 * position}", f"{2 * position + 1}")
    assert diagnosis.confidence == 1.0
    assert (
        f" {2 * position - 1}" in diagnosis.findings[0].message or f" {2 * position} " in diagnosis.findings[0].message
    )


@pytest.mark.parametrize("block", [0, 4, 7])
def test_a_block_of_a_residual_network(block: int) -> None:
    model = Residual()
    diagnosis = diagnose(setup(scaled(model, f"blocks.{block}.2", 1e4)))
    assert diagnosis.guilty == f"blocks.{block}.2"
    assert diagnosis.confidence > 0.8


@pytest.mark.parametrize("block", [0, 4, 7])
def test_nan_backward_in_a_block_of_a_residual_network(block: int) -> None:
    model = Residual()
    model.blocks[block][1] = Function(lambda x: x.relu() + (0 * x).abs().sqrt())
    diagnosis = diagnose(setup(model))
    assert [finding.code for finding in diagnosis.findings] == ["SG204"]
    assert diagnosis.guilty in (f"blocks.{block}.1", f"blocks.{block}.1:relu")
    assert diagnosis.confidence == 1.0


@pytest.mark.parametrize("layer", ["short.0", "short.4", "long.2", "long.12"])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_layer_of_one_of_two_towers(layer: str, factor: float) -> None:
    diagnosis = diagnose(setup(scaled(Towers(), layer, factor)))
    assert diagnosis.guilty == layer
    assert diagnosis.confidence == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("activation", "gain", "codes"),
    [
        (nn.ReLU, 0.6, {"SG101", "SG102"}),
        (nn.Sigmoid, 1.0, {"SG101", "SG102"}),
        (nn.ReLU, 5.0, {"SG201", "SG202"}),
    ],
)
def test_layers_that_are_all_alike_share_the_blame(
    activation: Callable[[], nn.Module], gain: float, codes: set[str]
) -> None:
    diagnosis = diagnose(setup(plain(20, activation, gain)))
    found = {finding.code: finding.confidence for finding in diagnosis.findings}
    assert codes <= set(found)
    assert diagnosis.findings[0].severity is Severity.ERROR
    for code in codes:
        assert 0.5 / 20 < found[code] < 2 / 20


def test_a_deep_network_whose_signal_drowns_in_rounding_blames_no_single_layer() -> None:
    torch.manual_seed(0)
    parts = [part for i in range(60) for part in (nn.Linear(64 if i else FEATURES, 64), nn.Sigmoid())]
    diagnosis = diagnose(setup(nn.Sequential(*parts, nn.Linear(64, 4))))
    assert diagnosis.findings[0].evidence["decades"] == -float("inf") or diagnosis.findings[0].code == "SG101"
    assert diagnosis.confidence < 0.2
    assert named(diagnosis, "SG102") == ("0", pytest.approx(0.15, abs=0.1))
