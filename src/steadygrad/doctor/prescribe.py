"""From findings to prescriptions, cheapest and likeliest first."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Set

import steadygrad.boltzmann.pretraining  # noqa: F401  # it adds itself to the catalogue
from steadygrad.errors import UsageError
from steadygrad.records import Blueprint, Diagnosis, Finding, Prescription, Role, Severity, Step, Symptom, TargetKind
from steadygrad.signals.layers import canonical

__all__ = ["check_allowed", "codes_of", "prescribe", "rationale"]

# Symptoms of signal propagation: what initialization, activations, normalization and residual wiring treat.
PROPAGATION = frozenset(
    {
        Symptom.VANISHING,
        Symptom.EXPLODING,
        Symptom.DEAD_UNITS,
        Symptom.SATURATION,
        Symptom.INITIALIZATION,
        Symptom.DISCONNECTED,
        Symptom.NONFINITE,
    }
)
# All steps together should be able to go about so far, in units of the weights, one step within the bounds
# (TheDeepChecker, Ben Braiek and Khomh 2022: 1e-4 to 1e-1; torch's default for Adam is 1e-3).
WAY, LEAST_STEP, LARGEST_STEP = 0.6, 1e-3, 2e-2
# Rows of an embedding say nothing until they are learned, and start at size 1: their way is at least that.
EMBEDDING_WAY = 2.0
# What all steps together should be able to lower a loss by, in units of itself, if the first ones went on.
ENOUGH_FALL = 10.0
FEW_STEPS, ENOUGH_STEPS = 32, 300  # hardly any training from scratch ends in fewer; most small ones do in as many
SMALL_BATCH, USUAL_BATCH = 8, 32
USUAL_DROPOUT = 0.1  # what the remedy less_dropout leaves
HELD_BACK = frozenset({"SG521", "SG522"})  # the optimizer's own settings leave the gradient no say
ALLOWED = frozenset({"width", "depth", "data"})
SHALLOW = 4  # weight layers that stay where depth may be changed
DEEP = 7  # weight layers from which shortcuts are worth a try
VERY_DEEP = 50  # weight layers from which a plain network is offered the initialization for any depth
# Losses, and the heads before them, that fit the targets: nothing is to be gained by another loss.
FITTING = {
    TargetKind.CLASS_INDEX: {("cross_entropy", ""), ("nll_loss", "log_softmax")},
    TargetKind.BINARY: {("binary_cross_entropy_with_logits", ""), ("binary_cross_entropy", "sigmoid")},
    TargetKind.REAL: {("mse_loss", "")},
}
PLAIN_ROLES = frozenset({Role.LINEAR, Role.ACTIVATION, Role.OTHER})

WHY = {
    "activation": "activations that do not saturate",
    "batch_size": "batches large enough to point the way",
    "centered_updates": "steps of like effect in every layer",
    "complete_rows": "rows that hold nothing but numbers",
    "clip_by_global_norm": "spikes of the gradient cut off",
    "depth": "fewer layers to pass",
    "head": "an output that fits the loss",
    "initialization": "weights drawn for the activations in use",
    "inserted_activation": "activations between the layers",
    "learning_rate": "steps of a healthy size",
    "less_dropout": "dropout that leaves something",
    "longer_training": "enough steps to learn",
    "loss": "a loss that fits the output",
    "normalization": "every layer's output kept at unit scale",
    "optimizer": "steps of like size for large and small gradients",
    "pretraining": "layers learned one by one without targets",
    "residual": "shortcuts that carry signal and gradient past each layer",
    "schedule": "a learning rate that does not die",
    "standardize_inputs": "inputs at unit scale",
    "standardize_targets": "targets at unit scale",
    "unfreeze": "weights that may learn",
    "width": "more units in every layer",
}


def prescribe(
    diagnosis: Diagnosis, keep_weights: bool = False, longer: bool = True, allow: Collection[str] = ()
) -> tuple[Prescription, ...]:
    """Return what to try for a diagnosis, the smallest change first.

    Faults that a finding names beyond doubt (a head that does not fit its loss, unscaled data) are repaired in every
    prescription. On top of that come ever larger changes: a learning rate, an optimizer, fresh weights, loss and data
    brought into the usual form, then activations, normalization and shortcuts. Width, depth and data stay unless
    ``allow`` names them. What does not fit a set-up is left out when it is tried.

    Args:
        diagnosis: What was found.
        keep_weights: Whether the weights carry something learned, so that they must not be drawn again.
        longer: Whether a training of a handful of steps may be prolonged.
        allow: What may be changed besides: ``"width"``, ``"depth"``, and of the ``"data"`` which rows are learned.

    Raises:
        UsageError: If ``allow`` names something else.

    Example:
        >>> import torch, steadygrad as sg
        >>> x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Softmax(-1))
        >>> setup = sg.TrainingSetup(net, torch.nn.functional.cross_entropy, train=(x, y))
        >>> print(sg.prescribe(sg.diagnose(setup))[0])
        head(to='identity')
    """
    check_allowed(allow)
    rows = (Step("complete_rows", {}, codes_of(diagnosis, {Symptom.DATA})),) if "data" in allow else ()
    repairs, planned = (*rows, *_repairs(diagnosis)), diagnosis.blueprint.steps
    more = longer and 0 < planned < FEW_STEPS
    end = (Step("longer_training", {"times": math.ceil(ENOUGH_STEPS / planned)}),) if more else ()
    rungs: list[tuple[Step, ...]] = []
    for changes in (*_ladder(diagnosis, keep_weights, allow), *_pretrained(diagnosis, keep_weights)):
        steps = (*_joined(repairs, changes), *end)
        if steps and steps not in rungs:
            rungs.append(steps)
    return tuple(Prescription(steps, rationale(steps)) for steps in rungs)


def check_allowed(allow: Collection[str]) -> None:
    """Refuse what cannot be allowed.

    Raises:
        UsageError: If there is something else than width, depth and data.
    """
    if isinstance(allow, str) or not ALLOWED.issuperset(allow):
        raise UsageError(f"allow: expected a collection of {', '.join(map(repr, sorted(ALLOWED)))}, got {allow!r}.")


def rationale(steps: Iterable[Step]) -> str:
    """Return what steps amount to, in words."""
    return "; ".join(dict.fromkeys(WHY[step.remedy] for step in steps)) or "nothing"


def codes_of(diagnosis: Diagnosis, symptoms: Set[Symptom]) -> tuple[str, ...]:
    """Return the codes of all warnings and errors with one of these symptoms, sorted."""
    found = (finding for finding in diagnosis.findings if finding.severity >= Severity.WARNING)
    return tuple(sorted({finding.code for finding in found if finding.symptom in symptoms}))


def _joined(repairs: tuple[Step, ...], changes: Iterable[Step]) -> tuple[Step, ...]:
    """Return repairs and changes in one row, without what the repairs do already."""
    known = {(step.remedy, step.settings.get("method")) for step in repairs}
    rest = [step for step in changes if (step.remedy, step.settings.get("method")) not in known]
    return (*repairs, *rest)


def _repairs(diagnosis: Diagnosis) -> Iterator[Step]:
    """Yield what mends faults that a finding names beyond doubt."""
    codes = {finding.code for finding in diagnosis.findings if finding.severity >= Severity.WARNING}
    blueprint = diagnosis.blueprint
    if "SG602" in codes:
        yield Step("head", {"to": "sigmoid" if blueprint.loss == "binary_cross_entropy" else "identity"}, ("SG602",))
    elif "SG601" in codes and blueprint.loss == "nll_loss":
        if blueprint.head is None:
            yield Step("loss", {"to": "cross_entropy"}, ("SG601",))
        else:
            yield Step("head", {"to": "log_softmax"}, ("SG601",))
    elif codes & {"SG601", "SG603"}:
        yield Step("head", {"to": "identity"}, tuple(sorted(codes & {"SG601", "SG603"})))
    if "SG609" in codes:
        yield from _fitting_loss(blueprint, ("SG609",))
    if "SG605" in codes:
        yield Step("loss", {"to": "matched"}, ("SG605",))
    if "SG105" in codes:
        yield Step("unfreeze", {}, ("SG105",))
    if "SG606" in codes:
        yield Step("inserted_activation", {}, ("SG606",))
    if "SG104" in codes:
        yield Step("activation", {"to": "gelu"}, ("SG104",))
    if scale := tuple(sorted(codes & {"SG802", "SG805"})):
        yield Step("standardize_inputs", {}, scale)
    if "SG803" in codes and blueprint.target_kind is TargetKind.REAL:
        yield Step("standardize_targets", {}, ("SG803",))
    if "SG303" in codes:
        yield Step("less_dropout", {}, ("SG303",))
    if held_back := tuple(sorted(codes & HELD_BACK)):
        yield _adam(blueprint, held_back)


def _fitting_loss(blueprint: Blueprint, answers: tuple[str, ...] = ()) -> Iterator[Step]:
    """Yield the usual loss for the targets, on raw outputs."""
    usual = {
        TargetKind.CLASS_INDEX: "cross_entropy",
        TargetKind.BINARY: "bce_with_logits",
        TargetKind.REAL: "mse",
    }.get(blueprint.target_kind)
    if usual is not None:
        if blueprint.head is not None:
            yield Step("head", {"to": "identity"}, answers)
        yield Step("loss", {"to": usual}, answers)


def _loss_fits(blueprint: Blueprint) -> bool:
    fitting = FITTING.get(blueprint.target_kind, set())
    return (blueprint.loss, canonical(blueprint.head or "")) in fitting and blueprint.loss_reduction == "mean"


def _ladder(diagnosis: Diagnosis, keep_weights: bool, allow: Collection[str]) -> Iterator[tuple[Step, ...]]:
    """Yield ever larger changes."""
    blueprint = diagnosis.blueprint
    answers = codes_of(diagnosis, PROPAGATION)
    adam = _adam(blueprint, codes_of(diagnosis, PROPAGATION | {Symptom.LEARNING_RATE}))
    yield ()
    if (rate := _healthy_rate(diagnosis)) is not None:
        yield (rate,)
    redrawn: tuple[Step, ...] = ()
    if not keep_weights:
        redrawn = (Step("initialization", {"method": "auto"}, answers),)
        if any(layer.role is Role.RECURRENT for layer in blueprint.layers):
            redrawn += (Step("initialization", {"method": "orthogonal_recurrent"}, answers),)
    yield redrawn if answers and redrawn else (adam,)  # the likelier of the two small changes
    if exploding := codes_of(diagnosis, {Symptom.EXPLODING}):
        redrawn += (Step("clip_by_global_norm", {"max_norm": 1.0}, exploding),)
    yield (*redrawn, adam)
    if answers and redrawn and _is_very_deep_and_plain(blueprint):
        isometric = Step("initialization", {"method": "isometric"}, answers)
        yield (isometric, Step("centered_updates", {}, answers))
    scaled = tuple(_scaled(blueprint))
    sound = (*scaled, *redrawn, adam)
    if scaled:
        yield sound
    depth = sum(layer.role is Role.LINEAR for layer in blueprint.layers)
    gelu = Step("activation", {"to": "gelu"}, answers)
    layer_norm = Step("normalization", {"kind": "layer"}, answers)
    if "depth" in allow and redrawn and depth >= DEEP:
        yield (Step("depth", {"layers": SHALLOW}, answers), *sound)
    if "width" in allow and redrawn:
        yield (Step("width", {"times": 2}, answers), *sound)
    skips = (Step("residual", {}, answers),) if depth >= DEEP else ()
    usual = () if _loss_fits(blueprint) else tuple(_fitting_loss(blueprint))
    yield (gelu, *skips, *sound)
    yield (*usual, gelu, *skips, layer_norm, *sound)


def _adam(blueprint: Blueprint, answers: tuple[str, ...]) -> Step:
    """Return AdamW with steps of a healthy size."""
    return Step("optimizer", {"name": "adamw", "lr": float(f"{_step_size(blueprint):.2g}")}, answers)


def _healthy_rate(diagnosis: Diagnosis) -> Step | None:
    """Return the learning rate that answers the findings about it: the lowest one if any of them wants a lower one."""
    lr = diagnosis.blueprint.optimizer_settings.get("lr", 0.0)
    if any(finding.symptom is Symptom.DATA or finding.code in HELD_BACK for finding in diagnosis.findings):
        return None  # steps are of another size once the data are scaled, or by another optimizer
    about = [finding for finding in diagnosis.findings if finding.symptom is Symptom.LEARNING_RATE]
    factors = {finding.code: factor for finding in about if (factor := _rate_factor(diagnosis, finding))}
    if not factors or not lr > 0:
        return None
    lowest = min(factors, key=factors.__getitem__)
    code = lowest if factors[lowest] < 1 else next(iter(factors))
    return Step("learning_rate", {"lr": float(f"{lr * factors[code]:.2g}")}, (code,))


def _rate_factor(diagnosis: Diagnosis, finding: Finding) -> float | None:
    """Return what a finding says the learning rate should be multiplied with; None if it does not say."""
    evidence = finding.evidence
    if ratio := evidence.get("update_ratio"):
        return _step_size(diagnosis.blueprint) / ratio
    if overshoot := evidence.get("overshoot"):  # the lowest point along a step of quadratic loss
        return 1 / (2 * overshoot) if overshoot < math.inf else None
    alone = all(f.symptom is Symptom.LEARNING_RATE for f in diagnosis.findings if f.severity >= Severity.WARNING)
    if alone and (fall := evidence.get("fall")):  # else it is another fault that leaves nothing to follow
        return ENOUGH_FALL / fall
    return None


def _step_size(blueprint: Blueprint) -> float:
    """Return how far one step should go, beside the size of the weights."""
    way = EMBEDDING_WAY if any(layer.role is Role.EMBEDDING for layer in blueprint.layers) else WAY
    return min(max(way / max(blueprint.steps, 1), LEAST_STEP), LARGEST_STEP)


def _scaled(blueprint: Blueprint) -> Iterator[Step]:
    """Yield what brings data, dropout, batches and schedule into the usual range, so far as it is not there."""
    if blueprint.inputs:
        yield Step("standardize_inputs")
    if blueprint.target_kind is TargetKind.REAL:
        yield Step("standardize_targets")
    if any(layer.dropout > USUAL_DROPOUT for layer in blueprint.layers):
        yield Step("less_dropout")
    if blueprint.scheduled:
        yield Step("schedule", {"decay": "none"})
    if 0 < blueprint.batch < SMALL_BATCH:
        yield Step("batch_size", {"samples": USUAL_BATCH})


def _pretrained(diagnosis: Diagnosis, keep_weights: bool) -> Iterator[tuple[Step, ...]]:
    """Yield greedy pretraining for a stack of sigmoid layers that is ill at its start."""
    answers = codes_of(diagnosis, {Symptom.VANISHING, Symptom.INITIALIZATION, Symptom.SATURATION})
    hidden = [layer for layer in diagnosis.blueprint.layers if layer.fan_in is not None][:-1]
    dense = all(layer.kind == "Linear" and layer.activation == "Sigmoid" for layer in hidden)
    if answers and not keep_weights and len(hidden) >= 2 and dense:
        yield (Step("pretraining", {"epochs": 10}, answers),)


def _is_very_deep_and_plain(blueprint: Blueprint) -> bool:
    linear = [layer for layer in blueprint.layers if layer.role is Role.LINEAR]
    plain = all(len(layer.follows) < 2 and layer.role in PLAIN_ROLES for layer in blueprint.layers)
    return plain and len(linear) >= VERY_DEEP and all(layer.kind == "Linear" for layer in linear)
