"""Every rule: a sick network that shows it, and its healthy twin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.diagnosis import RULES, diagnose
from steadygrad.diagnosis.contrastive import RULES as CONTRASTIVE
from steadygrad.diagnosis.curvature import RULES as CURVATURE
from steadygrad.diagnosis.over_time import RULES as OVER_TIME
from steadygrad.records import Severity
from steadygrad.training import TrainingSetup

from .networks import (
    BATCH,
    CLASSES,
    Function,
    biased,
    inputs,
    inserted,
    labels,
    lengths_apart,
    plain,
    regression,
    scaled,
    setup,
)


class Row(NamedTuple):
    code: str
    sick: Callable[[], TrainingSetup]
    healthy: Callable[[], TrainingSetup]
    severity: Severity
    layer: str | None
    message: str
    evidence: dict[str, float]


def warning(*row: object) -> Row:
    code, sick, healthy, layer, message, evidence = row
    return Row(code, sick, healthy, Severity.WARNING, layer, message, evidence)  # type: ignore[arg-type]


def error(*row: object) -> Row:
    return warning(*row)._replace(severity=Severity.ERROR)


def note(*row: object) -> Row:
    return warning(*row)._replace(severity=Severity.NOTE)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def frozen(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    return model


def first_layer_only(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(parameters)[:2], lr=0.1)


class Detached(nn.Module):
    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.below, self.above, self.detach = plain(3, outputs=16), plain(2), detach

    def forward(self, x: Tensor) -> Tensor:
        x = self.below(x)
        return self.above(x.detach() if self.detach else x)


def constant(model: nn.Module, layer: str, value: float) -> nn.Module:
    nn.init.constant_(model.get_submodule(layer).weight, value)
    return model


def with_head(head: nn.Module, outputs: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(plain(3, outputs=outputs), head)


def partly_dead(share: float) -> nn.Module:
    model = plain(8)
    with torch.no_grad():
        model.get_submodule("6").bias[: int(64 * share)] = -99.0
    return model


class LogOutput(nn.Module):
    """The logarithm of a network's answers, taken outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).log()


class RootOfZero(nn.Module):
    """``x * sqrt(w)`` at ``w = 0``, whose derivative is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + x @ self.weight.abs().sqrt()


def steps_of(lr: float, depth: int = 4, **more: object) -> Callable[[], TrainingSetup]:
    return lambda: setup(plain(depth), optimizer=partial(torch.optim.SGD, lr=lr, **more))


def steep(**more: object) -> Callable[[], TrainingSetup]:
    """A gradient that outweighs any decay, for the inputs are huge."""
    return lambda: setup(plain(4), 100 * inputs(), optimizer=partial(torch.optim.SGD, lr=0.1, **more))


def log_of_zero(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) - torch.log(output[0, 0] * 0)


def root_of_zero(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) + (output * 0).abs().sqrt().mean()


def spoiled(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x.view(-1)[3] = value
    return x


def targets(mean: float, std: float) -> Tensor:
    return mean + std * inputs(BATCH, 1)


binary = (labels() > 1).float()[:, None]
scalar = partial(plain, 3, outputs=1)

TABLE = [
    error("SG101", lambda: setup(plain(12, nn.Sigmoid, 1.0)), lambda: setup(plain(12)), "20",
          r"the gradient falls from .* at the output to .* at 0, by a factor of 0\.\d+ a layer over 12 layers, from 20",
          {"layers": 12}),
    warning("SG101", lambda: setup(scaled(plain(6), "4", 3e-3)), lambda: setup(scaled(plain(6), "4", 0.3)), "4",
            "most of it at 4", {"layers": 6}),
    error("SG102", lambda: setup(plain(12, nn.Sigmoid, 1.0)), lambda: setup(plain(12)), "0",
          r"the signal falls from 1\.0e\+00 at the input to .* at output", {"layers": 12}),
    warning("SG103", lambda: setup(Detached(True)), lambda: setup(Detached(False)), "below.4",
            r"3 of 5 trainable layers get no gradient, the loss does not depend on them: below\.0, below\.2, below\.4$",
            {"layers": 3, "of": 5}),
    error("SG103", lambda: setup(plain(3).requires_grad_(False)), lambda: setup(plain(3)), None,
          "no parameter requires a gradient", {}),
    error("SG103", lambda: setup(plain(3), loss=lambda o, y: F.cross_entropy(o.detach(), y).requires_grad_()),
          lambda: setup(plain(3)), None, "the loss is detached from the model", {}),
    error("SG104", lambda: setup(biased(plain(6, nn.Hardtanh), "4", 99.0)), lambda: setup(plain(6, nn.Hardtanh)), "5",
          r"5 \(Hardtanh\) gets a gradient of .* exactly 0 of it arrives at the output of 4",
          {}),
    warning("SG105", lambda: setup(frozen(plain(4))), lambda: setup(frozen(plain(4)), redraw=None), "0",
            "the weights of all 4 layers are frozen and only biases learn", {"layers": 4}),
    warning("SG106", lambda: setup(plain(4), optimizer=first_layer_only), lambda: setup(plain(4)), "2",
            "the optimizer does not hold 3 layers that require a gradient: 2, 4, 6$", {"layers": 3}),
    error("SG107", lambda: setup(plain(4), optimizer=lambda _: torch.optim.SGD(plain(3).parameters(), lr=0.1)),
          lambda: setup(plain(4)), None,
          "SGD holds 6 parameters that are not the model's, and 4 layers of the model are left out",
          {"foreign": 6, "left_out": 4}),
    error("SG201", lambda: setup(plain(12, gain=4.0)), lambda: setup(plain(12)), "22",
          r"the gradient grows from .* at the output to .* at \d+, by a factor of [23]\.?\d* a layer", {}),
    warning("SG201", lambda: setup(scaled(plain(6), "4", 300)), lambda: setup(scaled(plain(6), "4", 3)), "4",
            "most of it at 4", {}),
    error("SG202", lambda: setup(plain(12, gain=4.0)), lambda: setup(plain(12)), "0",
          r"the signal grows from 1\.0e\+00 at the input to .* at output", {}),
    error("SG203", lambda: setup(constant(plain(6), "4", 1e38)), lambda: setup(plain(6)), "4",
          r"4 \(Linear\) is the first layer with a non-finite output: 4096 of 4096 entries; what comes from 3 is fin",
          {"nonfinite": 4096, "numel": 4096}),
    error("SG203", lambda: setup(constant(plain(4), "2", math.nan)), lambda: setup(plain(4)), "2",
          "its own weights are not finite", {"nonfinite": 4096, "numel": 4096}),
    error("SG203", lambda: setup(with_head(Function(torch.log))), lambda: setup(with_head(nn.Identity())), "1",
          r"1 \(Function\) is the first layer with a non-finite output: \d+ of 256 entries", {"numel": 256}),
    error("SG203", lambda: setup(LogOutput()), lambda: setup(plain(3)), None,
          "entries of the model's output are not finite, though the outputs of all layers are", {"numel": 256}),
    error("SG204", lambda: setup(inserted(3, Function(lambda x: x + (x * 0).abs().sqrt()), 6)), lambda: setup(plain(6)),
          "6", r"6 \(Function\) gets a finite gradient, and 4096 non-finite entries arrive at the output of 5",
          {"nonfinite": 4096}),
    error("SG204", lambda: setup(plain(3), loss=root_of_zero), lambda: setup(plain(3)), None,
          "256 non-finite entries arrive at the output of 4, after which only the loss comes", {"nonfinite": 256}),
    error("SG204", lambda: setup(nn.Sequential(RootOfZero(), plain(3, outputs=CLASSES))), lambda: setup(plain(3)),
          "0", r"0 \(RootOfZero\) gets a finite gradient and makes 256 non-finite entries in that of its weights",
          {"nonfinite": 256}),
    error("SG205", lambda: setup(plain(3), loss=log_of_zero), lambda: setup(plain(3)), None,
          "the loss is inf though the model's output is finite", {}),
    error("SG301", lambda: setup(biased(plain(8), "6", -99.0)), lambda: setup(plain(8)), "7",
          r"100% of 7 \(ReLU\): units are 0 for every sample$", {"dead_fraction": 1.0, "layers": 1}),
    warning("SG301", lambda: setup(partly_dead(0.8)), lambda: setup(partly_dead(0.4)), "7", r"8\d% of 7",
            {"layers": 1}),
    error("SG302", lambda: setup(scaled(plain(8, nn.Tanh, 5 / 3), "6", 100)), lambda: setup(plain(8, nn.Tanh, 5 / 3)),
          "7", r"9\d% of 7 \(Tanh\): outputs lie on a bound", {"layers": 1}),
    warning("SG302", lambda: setup(scaled(plain(8, nn.Tanh, 5 / 3), "6", 6)), lambda: setup(plain(8, nn.Tanh, 5 / 3)),
            "7", "outputs lie on a bound", {"layers": 1}),
    warning("SG303", lambda: setup(inserted(2, nn.Dropout(0.9), 4)), lambda: setup(inserted(2, nn.Dropout(0.5), 4)),
            "4", r"4 \(Dropout\) drops 90% of the hidden units in every step$", {"dropout": 0.9, "layers": 1}),
    warning("SG303", lambda: setup(inserted(2, nn.AlphaDropout(0.8), 4)),
            lambda: setup(inserted(0, nn.AlphaDropout(0.8), 4)), "4",
            r"4 \(AlphaDropout\) drops 80%", {"dropout": 0.8}),
    warning("SG401", lambda: setup(scaled(plain(8), "6", 0.02)), lambda: setup(scaled(plain(8), "6", 0.5)), "6",
            "the weights of 6 are .* times too small for what follows", {"layers": 8}),
    error("SG401", lambda: setup(plain(20, gain=0.5)), lambda: setup(plain(20)), "0",
          "over 20 layers the signal changes 1e-09-fold by this alone", {"layers": 20}),
    error("SG401", lambda: setup(lengths_apart(plain(20), 0.3, 1.0)),
          lambda: setup(lengths_apart(plain(20), 1.0, 0.01)), "0",
          "the weights of 0 are 3.. times too small for what follows; over 20 layers", {"layers": 20}),
    error("SG402", lambda: setup(constant(plain(4), "2", 0.01)), lambda: setup(plain(4)), "2",
          "all 4096 weights of 2 are 0.01: its units stay alike", {"numel": 4096}),
    error("SG501", steps_of(1e3), steps_of(0.1), None, "one SGD step changes weights by .* of their size", {"lr": 1e3}),
    warning("SG501", steps_of(10.0), steps_of(1.0), None, "median of 4 layers", {"lr": 10.0}),
    warning("SG501", lambda: setup(plain(4), optimizer=partial(torch.optim.RMSprop, lr=0.1)),
            lambda: setup(plain(4), optimizer=partial(torch.optim.RMSprop, lr=0.02)), None, "one RMSprop step", {}),
    error("SG502", steps_of(1e-7), steps_of(0.1), None, "500 steps like the first move no layer by more", {"lr": 1e-7}),
    warning("SG502", steps_of(5e-6), steps_of(5e-6, momentum=0.99), None, "too slow for the steps planned",
            {"lr": 5e-6}),
    warning("SG521", steps_of(0.1, weight_decay=0.5), steps_of(0.1, weight_decay=5e-4), None,
            r"the weight decay of 0\.5 pulls the weights to 0 .* times as hard .* \(median of 4 layers\)",
            {"weight_decay": 0.5}),
    warning("SG521", steps_of(0.1, weight_decay=0.5), steps_of(1e-4, weight_decay=0.5), None,
            "500 steps take them there", {}),
    warning("SG521", lambda: setup(plain(4), optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=50)),
            lambda: setup(plain(4), optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)), None,
            "the weight decay of 50 pulls", {"weight_decay": 50}),
    warning("SG521", steep(weight_decay=1.0), steep(weight_decay=0.01), None,
            "the weight decay of 1 takes 10% of the weights in every step: they forget within 10 ", {"forgotten": 0.1}),
    warning("SG522", steps_of(0.01, momentum=0.997), steps_of(0.01, momentum=0.99), None,
            "with a momentum of 0.997 swings take 667 steps to die down, and 500 are planned", {"momentum": 0.997}),
    error("SG601", lambda: setup(with_head(nn.Softmax(-1))), lambda: setup(with_head(nn.LogSoftmax(-1))), "1",
          "cross_entropy applies its own softmax and wants raw scores, but 1 already applied softmax", {}),
    error("SG601", lambda: setup(with_head(nn.Sigmoid(), 1), None, binary, F.binary_cross_entropy_with_logits),
          lambda: setup(with_head(nn.Sigmoid(), 1), None, binary, F.binary_cross_entropy), "1",
          "binary_cross_entropy_with_logits applies its own sigmoid", {}),
    warning("SG601", lambda: setup(with_head(nn.ReLU())), lambda: setup(with_head(nn.Identity())), "1",
            "already applied relu", {}),
    error("SG601", lambda: setup(plain(3), loss=F.nll_loss),
          lambda: setup(with_head(Function(lambda x: x.softmax(-1).log())), loss=F.nll_loss), "4",
          "nll_loss wants log-probabilities, but the output comes from 4", {}),
    error("SG602", lambda: setup(with_head(nn.Softmax(-1), 1), None, binary, F.binary_cross_entropy),
          lambda: setup(with_head(nn.Sigmoid(), 1), None, binary, F.binary_cross_entropy), "1",
          "1 is a softmax over one unit: its output never changes", {}),
    error("SG603", lambda: regression(with_head(nn.Tanh(), 1), targets(5, 1)),
          lambda: regression(with_head(nn.Tanh(), 1), targets(0, 0.2)), "1",
          r"values in \[-1, 1\], but the targets lie", {}),
    warning("SG603", lambda: regression(with_head(nn.Sigmoid(), 1), targets(0.5, 1)),
            lambda: regression(with_head(nn.Sigmoid(), 1), targets(0.5, 0.1)), "1", r"1 \(sigmoid\)", {}),
    error("SG604", lambda: setup(biased(plain(3), "2", -99.0)), lambda: setup(plain(3)), "4",
          "the output is the same for every sample", {}),
    error("SG605", lambda: regression(scalar(), inputs(BATCH)), lambda: regression(scalar(), inputs(BATCH, 1)), "4",
          r"mse_loss compares shape \[64, 1\] with \[64\] and broadcasts", {}),
    warning("SG606", lambda: setup(plain(4, nn.Identity)), lambda: setup(plain(4, Sine)), "0",
            "4 linear layers follow each other with no activation between them", {"layers": 4}),
    note("SG607", lambda: setup(plain(3), y=labels() % 3 + 1), lambda: setup(plain(3), y=labels() % 3), "4",
         "labels run from 1 to 3 and the output has 4 units: label 0 does not occur", {"low": 1, "units": 4}),
    note("SG608", lambda: setup(plain(3), loss=nn.CrossEntropyLoss(reduction="sum")),
         lambda: setup(plain(3), loss=nn.CrossEntropyLoss()), None, "gradients are 64 times those of the mean",
         {"batch": 64}),
    error("SG609", lambda: setup(plain(3), loss=lambda o, y: -F.cross_entropy(o, y)), lambda: setup(plain(3)), None,
          r"the loss is -\d.*, though cross_entropy is never below 0", {}),
    error("SG609", lambda: setup(with_head(nn.LogSoftmax(1)), loss=lambda o, y: -F.nll_loss(o, y)),
          lambda: setup(plain(3), loss=F.nll_loss), None, "though nll_loss is never below 0", {}),
    note("SG610", lambda: setup(inserted(2, nn.Dropout(0.1), 4).eval()), lambda: setup(inserted(2, nn.Dropout(0.1), 4)),
         "4", "1 modules that act otherwise while training stand in evaluation mode: 4", {"modules": 1}),
    error("SG611", lambda: setup(plain(3), y=labels() + 1), lambda: setup(plain(3)), "4",
          "labels run from 1 to 4, but the output has 4 units, for 0 to 3: they are off by one", {"units": 4}),
    error("SG611", lambda: setup(plain(3), y=-labels()),
          lambda: setup(plain(3), y=-labels().clamp(max=1), loss=partial(F.cross_entropy, ignore_index=-1)), "4",
          "labels run from -3 to 0, but the output has 4 units, for 0 to 3$", {"low": -3}),
    error("SG801", lambda: setup(plain(3), spoiled(inputs(), math.nan)), lambda: setup(plain(3)), None,
          "1 of 1024 entries of the input are NaN or infinite", {"nonfinite": 1, "numel": 1024}),
    error("SG801", lambda: regression(scalar(), spoiled(inputs(BATCH, 1), math.inf)), lambda: regression(scalar()),
          None, "1 of 64 entries of the target", {"nonfinite": 1, "numel": 64}),
    warning("SG802", lambda: setup(plain(3), 128 + 70 * inputs()), lambda: setup(plain(3), 0.5 + 0.3 * inputs()), None,
            r"inputs have mean 1\d\d and standard deviation \d\d\.?\d*: far from unit scale", {}),
    warning("SG802", lambda: setup(nn.Sequential(nn.Flatten(), *plain(3)), 100 * inputs(BATCH, 4, 4)),
            lambda: setup(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), *plain(3)), 100 * inputs(BATCH, 4, 4)), None,
            "far from unit scale", {}),
    error("SG802", lambda: setup(plain(3), 1e5 * inputs()),
          lambda: setup(nn.Sequential(Function(lambda x: x / 1e5), *plain(3)), 1e5 * inputs()), None,
          "far from unit scale", {}),
    warning("SG803", lambda: regression(scalar(), targets(100, 5)), lambda: regression(scalar(), targets(1, 5)), None,
            r"targets have mean 99.* and standard deviation .* far from unit scale", {}),
    error("SG803", lambda: regression(scalar(), targets(1e4, 5)),
          lambda: regression(biased(scalar(), "4", 1e4), targets(1e4, 5)), None, "the model's first outputs", {}),
    warning("SG804", lambda: setup(plain(3), y=0 * labels()), lambda: setup(plain(3)), None,
            "all 64 samples of the first batch have the label 0", {"label": 0, "batch": 64}),
    warning("SG805", lambda: setup(plain(3), inputs() * torch.logspace(0, 5, 16)),
            lambda: setup(plain(3), inputs() * torch.logspace(0, 3, 16)), None,
            r"features differ up to [\d.]+e\+05-fold", {}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")  # torch's own, for SG605
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.code}-{row.severity.label}-{row.message[:20]}")
def test_the_sick_network_shows_it_and_its_healthy_twin_does_not(row: Row) -> None:
    findings = [finding for finding in diagnose(row.sick()).findings if finding.code == row.code]
    assert len(findings) == 1
    (finding,) = findings
    assert (finding.severity, finding.layer) == (row.severity, row.layer)
    assert re.search(row.message, finding.message), finding.message
    assert {key: finding.evidence[key] for key in row.evidence} == pytest.approx(row.evidence)
    assert all(isinstance(value, (int, float)) for value in finding.evidence.values())
    assert (finding.symptom, finding.advice) == (RULES[row.code].symptom, RULES[row.code].advice)
    assert 0 <= finding.confidence <= 1

    assert row.code not in [finding.code for finding in diagnose(row.healthy()).findings]


def test_every_rule_of_one_look_has_a_row() -> None:
    # tests/monitor, tests/boltzmann and test_forecast.py show these
    elsewhere = {rule.code for rule in (*OVER_TIME, *CONTRASTIVE, *CURVATURE)}
    assert {row.code for row in TABLE} == set(RULES) - elsewhere
