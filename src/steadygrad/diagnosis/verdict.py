"""All rules over one look at a set-up make a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from steadygrad.diagnosis import curvature, optimizer
from steadygrad.diagnosis.forecast import forecast as foretold
from steadygrad.diagnosis.rules import select_rules
from steadygrad.records import Blueprint, Diagnosis, Observation
from steadygrad.signals import look_ahead, probe
from steadygrad.training import TrainingSetup, copied, device_of

__all__ = ["diagnose", "judge"]

# What the forecast does not count: findings of its own steps, which it would count twice, and rules that it was fitted
# without.
NOT_COUNTED = frozenset({rule.code for rule in (*curvature.RULES, *optimizer.RULES)} | {"SG303"})


def diagnose(
    setup: TrainingSetup, select: Iterable[str] = (), ignore: Iterable[str] = (), forecast: bool = False
) -> Diagnosis:
    """Look at one batch of a set-up and say what is wrong; nothing is trained.

    Model, gradients and random states are left bit for bit as found.

    Args:
        setup: What to look at.
        select: Rule codes or prefixes (``"SG1"``) to apply; all by default.
        ignore: Rule codes or prefixes to leave out.
        forecast: Whether to make a handful of real steps on a copy as well, and to say what will become of the
            training. Needs an optimizer; left out where it holds other parameters, or labels are out of range.

    Raises:
        SetupError: If the model, the loss or the data fail.
        UsageError: If a code matches no rule, or a forecast is asked for without an optimizer.

    Example:
        >>> import torch, steadygrad as sg
        >>> x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Softmax(-1))
        >>> setup = sg.TrainingSetup(net, torch.nn.functional.cross_entropy, train=(x, y))
        >>> [finding.code for finding in sg.diagnose(setup).findings]
        ['SG601']
    """
    select_rules(select, ignore)  # a wrong code is told before the work
    setup = _on_its_device(setup)
    blueprint, observation = probe(setup)
    if forecast and not (blueprint.foreign or blueprint.labels_outside):  # then no step can be made
        observation = replace(observation, outlook=look_ahead(setup))
    return judge(blueprint, observation, select=select, ignore=ignore)


def _on_its_device(setup: TrainingSetup) -> TrainingSetup:
    """Return the set-up itself, or a copy of it where its device is not where its model lies."""
    here = {parameter.device for parameter in setup.model.parameters()}
    return setup if setup.device is None or here <= {device_of(setup)} else copied(setup)


def judge(
    blueprint: Blueprint, observation: Observation, select: Iterable[str] = (), ignore: Iterable[str] = ()
) -> Diagnosis:
    """Apply the rules to measurements; findings stand worst first, then by code."""
    findings = [finding for rule in select_rules(select, ignore) for finding in rule.findings(blueprint, observation)]
    findings.sort(key=lambda finding: (-finding.severity, finding.code))
    counted = [finding for finding in findings if finding.code not in NOT_COUNTED]
    return Diagnosis(tuple(findings), observation, blueprint, foretold(blueprint, observation, counted))
