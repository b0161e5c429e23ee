"""Records built by hand: a deep sigmoid network whose signal dies, its cure, and hostile variants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from steadygrad.records import (
    Blueprint,
    Diagnosis,
    Finding,
    History,
    Layer,
    LayerStats,
    Moments,
    Observation,
    Outcome,
    Prescription,
    Proof,
    Role,
    Run,
    Severity,
    Step,
    Symptom,
    Trial,
    Verdict,
)

HOSTILE = "<script>alert('x')</script>[bold red]\x1b[31m\u202e&\"\ud800"


def moments(rms: float, nonfinite: int = 0) -> Moments:
    return Moments(rms=rms, mean=0.0, abs_max=3 * rms, zero_fraction=0.0, nonfinite=nonfinite, numel=640)


def stats(name: str, signal: float, grad: float) -> LayerStats:
    return LayerStats(
        name=name,
        output=moments(0.5),
        signal=signal,
        output_grad=moments(grad),
        weight=moments(0.06),
        weight_grad=moments(grad * 8),
        update_ratio=grad * 13,
    )


def network(depth: int, decay: float = 0.3) -> tuple[Blueprint, Observation]:
    """Return a chain of ``depth`` linear layers whose signal, and gradient, shrink ``decay``-fold a layer."""
    names = [f"net.{2 * i}" for i in range(depth)]
    layers = tuple(
        Layer(name, name, "Linear", Role.LINEAR, follows=(i - 1,) if i else (), fan_in=64, fan_out=64, trainable=True)
        for i, name in enumerate(names)
    )
    measured = tuple(stats(name, decay**i, 0.01 * decay ** (depth - 1 - i)) for i, name in enumerate(names))
    blueprint = Blueprint(
        layers,
        loss="cross_entropy",
        optimizer="SGD",
        optimizer_settings={"lr": 0.1, "momentum": 0.9},
        batch=64,
        parameters=4160 * depth,
    )
    return blueprint, Observation(loss=2.31, layers=measured, grad_norm=0.37, output=moments(0.4), output_signal=1e-9)


def finding(code: str = "SG101", layer: str | None = "net.8", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(
        code=code,
        symptom=Symptom.VANISHING,
        severity=severity,
        message="The gradient shrinks 0.3-fold a layer, from 0.01 at the output to 5.9e-13 at the input.",
        advice="Draw the weights by He's rule, or change the activation to ReLU.",
        layer=layer,
        evidence={"gain": 0.3, "threshold": 0.7},
        confidence=0.82,
    )


def sick(depth: int = 20) -> Diagnosis:
    blueprint, observation = network(depth)
    note = Finding("SG803", Symptom.DATA, Severity.NOTE, "One feature is constant.", "Drop it.")
    warning = finding("SG401", "net.2", Severity.WARNING)
    unseen = ("The forward pass calls a compiled function; its inside was not looked into.",)
    return Diagnosis((finding(), warning, note), observation, replace(blueprint, unseen=unseen))


def healthy(depth: int = 20) -> Diagnosis:
    blueprint, observation = network(depth, decay=0.97)
    return Diagnosis((), observation, blueprint)


def hostile() -> Diagnosis:
    """Return a diagnosis whose names attack the terminal and the page, with every kind of missing number."""
    blueprint, observation = network(6)
    first, second, third, fourth, *rest = observation.layers
    broken = (
        replace(first, name=HOSTILE, signal=math.nan, output_grad=moments(0.0, nonfinite=12)),
        replace(
            second, signal=math.inf, output=None, output_grad=None, weight=None, weight_grad=None, update_ratio=None
        ),
        replace(third, signal=0.0, output_grad=moments(0.0)),
        replace(fourth, signal=None, output_grad=moments(1e-300)),
        *rest,
    )
    layers = (replace(blueprint.layers[0], name=HOSTILE, kind=HOSTILE), *blueprint.layers[1:])
    blueprint = replace(blueprint, layers=layers, loss=HOSTILE, optimizer=HOSTILE, unseen=(HOSTILE,))
    bad = replace(finding(layer=HOSTILE), message=HOSTILE, advice=HOSTILE, evidence={HOSTILE: math.nan})
    return Diagnosis((bad,), replace(observation, loss=math.nan, grad_norm=math.inf, layers=broken), blueprint)


def run(seed: int, score: float, final: float, steps: int = 300) -> Run:
    losses = tuple(2.3 * (final / 2.3) ** (i / 99) * (1 + 0.05 * math.sin(7 * i + seed)) for i in range(100))
    return Run(seed=seed, steps=steps, score=score, losses=losses)


def diverged(seed: int) -> Run:
    return Run(seed=seed, steps=40, score=-math.inf, losses=(2.3, 8.1, 4e5, math.nan), diverged=True)


CURE = Prescription(
    (Step("he_initialization", {"gain": math.sqrt(2)}, ("SG101",)), Step("relu", {}, ("SG101", "SG401"))),
    rationale="The signal dies layer by layer, so the weights and the activation are changed together.",
)


def trials() -> list[Trial]:
    scale = Prescription((Step("input_scaling", {"kind": "standardize"}),))
    return [
        Trial(scale, (run(0, 0.104, 2.3, 100),), Outcome.STOPPED, "no better than chance after 100 steps", 180),
        Trial(Prescription((Step("unit_gain"),)), (), Outcome.NOT_APPLICABLE, "the model has no activation", 0),
        Trial(CURE, (run(0, 0.71, 0.9, 100), run(0, 0.948, 0.2)), Outcome.CHOSEN, "", 480),
        Trial(Prescription((Step("learning_rate", {"lr": 3.0}),)), (diverged(0),), Outcome.TRIED, "", 40),
    ]


def proof() -> Proof:
    before = tuple(run(seed, 0.10 + 0.004 * seed, 2.29) for seed in range(3))
    after = tuple(run(seed, 0.95 + 0.004 * seed, 0.11 + 0.01 * seed, steps=600) for seed in range(3))
    return Proof(CURE, before, after, "accuracy", Verdict.CURED, chance=0.1, goal=0.93)


def history(layers: int = 12, looks: int = 60, every: int = 10) -> History:
    """Return a run whose gradients shrink layer by layer, jump at two thirds and end not finite."""
    names = [f"net.{2 * i}" for i in range(layers)]
    record = History(names)
    rng = np.random.default_rng(0)
    for look in range(looks):
        share = look / looks
        jump = 1e3 if abs(share - 0.66) < 0.02 else 1.0
        grads = 0.01 * 0.5 ** np.arange(layers)[::-1] * np.exp(rng.normal(0, 0.3, layers)) * jump
        broken = np.zeros(layers)
        broken[layers // 2 :] = 3.0 if look == looks - 1 else 0.0
        record.append(
            look * every,
            {
                "loss": 2.3 * math.exp(-share) * jump**0.2,
                "grad_norm": math.nan if broken.any() else float(np.sqrt((grads**2).sum()) * 64),
                "grad_norm_used": min(1.0, float(np.sqrt((grads**2).sum()) * 64)),
                "lr": 0.1 * (1 - share),
                "skipped": float(look == 3),
            },
            {
                "grad_rms": np.where(broken > 0, np.nan, grads),
                "grad_nonfinite": broken,
                "weight_rms": np.full(layers, 0.06),
                "update_ratio": grads * 20,
                "output_rms": np.full(layers, 0.5),
                "output_signal": 0.9 ** np.arange(layers),
                "output_numel": np.full(layers, 640.0),
                "output_nonfinite": np.zeros(layers),
                "output_grad_rms": grads / 8,
                "output_grad_nonfinite": broken,
            },
        )
    return record


def alarms() -> list[tuple[int, Finding]]:
    """Return what a monitor told of :func:`history`."""
    spike = replace(finding("SG503", None, Severity.WARNING), message="The gradient norm jumps a thousandfold.")
    return [(0, finding("SG101", "net.2")), (400, spike), (590, finding("SG204", "net.12"))]


SUMMARY = {
    "name": "runs/train-1",
    "ended": "failed with ValueError",
    "unseen": ["the outputs of 1 layer: head"],
    "clipping": {"p50": 0.7, "p99": 3.0, "clipped": 0.4, "suggested": 0.9},
}


def hostile_history() -> History:
    """Return a run with attacking names and every kind of odd number, some of them never seen."""
    record = History([HOSTILE, "seen", "x" * 5000])
    odd = (math.nan, math.inf, -math.inf, 0.0, 1e308, 5e-324, -1.0)
    for step, value in enumerate(odd):
        totals = {"loss": value, "grad_norm": value, "grad_norm_used": value, "lr": value}
        record.append(step, totals, {"grad_rms": [value, 1.0, math.nan], "update_ratio": [1.0, value, value]})
    return record


def hostile_summary() -> dict[str, object]:
    return {"name": HOSTILE, "ended": HOSTILE, "unseen": [HOSTILE], "clipping": {HOSTILE: math.nan, "p50": "no"}}
