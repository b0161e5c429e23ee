"""From findings to prescriptions, cheapest and likeliest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from steadygrad.records import Blueprint, Diagnosis, Prescription, Role, Severity, Step, Symptom, TargetKind

__all__ = ["codes_of", "prescribe", "rationale"]

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

DEEP = 50  # weight layers from which a plain network is offered the initialization for any depth
PLAIN_ROLES = frozenset({Role.LINEAR, Role.ACTIVATION, Role.OTHER})

WHY = {
    "activation": "activations that do not saturate",
    "centered_updates": "steps of like effect in every layer",
    "clip_by_global_norm": "spikes of the gradient cut off",
    "head": "an output that fits the loss",
    "initialization": "weights drawn for the activations in use",
    "loss": "a loss that fits the output",
    "normalization": "every layer's output kept at unit scale",
    "optimizer": "steps of like size for large and small gradients",
    "residual": "shortcuts that carry signal and gradient past each layer",
    "standardize_inputs": "inputs at unit scale",
    "standardize_targets": "targets at unit scale",
}


def prescribe(diagnosis: Diagnosis, keep_weights: bool = False) -> tuple[Prescription, ...]:
    """Return what to try for a diagnosis, the smallest change first.

    Faults that a finding names beyond doubt (a head that does not fit its loss, unscaled data) are repaired in every
    prescription. On top of that come ever larger changes for the way signals travel. Learning rates are left to
    :func:`~steadygrad.doctor.treat`, which searches one for each.

    Args:
        diagnosis: What was found.
        keep_weights: Whether the weights carry something learned, so that they must not be drawn again.

    Example:
        >>> import torch, steadygrad as sg
        >>> x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Softmax(-1))
        >>> setup = sg.TrainingSetup(net, torch.nn.functional.cross_entropy, train=(x, y))
        >>> print(sg.prescribe(sg.diagnose(setup))[0])
        head(to='identity')
    """
    repairs = tuple(_repairs(diagnosis))
    rungs: list[tuple[Step, ...]] = []
    for changes in _ladder(diagnosis, bool(repairs), keep_weights):
        if (steps := (*repairs, *changes)) not in rungs:
            rungs.append(steps)
    return tuple(Prescription(steps, rationale(steps)) for steps in rungs)


def rationale(steps: Iterable[Step]) -> str:
    """Return what steps amount to, in words."""
    return "; ".join(WHY[step.remedy] for step in steps) or "nothing but a learning rate found by short trainings"


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
    if "SG605" in codes and blueprint.loss == "mse_loss":
        yield Step("loss", {"to": "mse"}, ("SG605",))
    if "SG802" in codes:
        yield Step("standardize_inputs", {}, ("SG802",))
    if "SG803" in codes and blueprint.target_kind is TargetKind.REAL:
        yield Step("standardize_targets", {}, ("SG803",))


def _ladder(diagnosis: Diagnosis, repaired: bool, keep_weights: bool) -> Iterator[tuple[Step, ...]]:
    """Yield ever larger changes for the way signals travel; an empty one where that may be sound as it is."""
    answers = codes_of(diagnosis, PROPAGATION)
    adam = Step("optimizer", {"name": "adamw"}, codes_of(diagnosis, PROPAGATION | {Symptom.LEARNING_RATE}))
    redrawn = () if keep_weights else (Step("initialization", {"method": "auto"}, answers),)
    if repaired or keep_weights or not answers:
        yield ()
    if not answers:
        yield (adam,)
    yield redrawn
    if exploding := codes_of(diagnosis, {Symptom.EXPLODING}):
        yield (*redrawn, Step("clip_by_global_norm", {"max_norm": 1.0}, exploding))
    yield (*redrawn, adam)
    if answers and redrawn and _is_deep_and_plain(diagnosis.blueprint):
        isometric = Step("initialization", {"method": "isometric"}, answers)
        yield (isometric, Step("centered_updates", {}, answers))
    if answers:
        gelu = Step("activation", {"to": "gelu"}, answers)
        skips = Step("residual", {}, answers)
        layer_norm = Step("normalization", {"kind": "layer"}, answers)
        for changes in ((gelu,), (skips,), (layer_norm,), (gelu, skips, layer_norm)):
            yield (*changes, *redrawn, adam)


def _is_deep_and_plain(blueprint: Blueprint) -> bool:
    linear = [layer for layer in blueprint.layers if layer.role is Role.LINEAR]
    plain = all(len(layer.follows) < 2 and layer.role in PLAIN_ROLES for layer in blueprint.layers)
    return plain and len(linear) >= DEEP and all(layer.kind == "Linear" for layer in linear)


def codes_of(diagnosis: Diagnosis, symptoms: Set[Symptom]) -> tuple[str, ...]:
    """Return the codes of all warnings and errors with one of these symptoms, sorted."""
    found = (finding for finding in diagnosis.findings if finding.severity >= Severity.WARNING)
    return tuple(sorted({finding.code for finding in found if finding.symptom in symptoms}))
