from __future__ import annotations

import json
import math

import pytest
from torch import nn

from steadygrad.diagnosis import RULES, Rule, diagnose, explain, judge, select_rules
from steadygrad.errors import UsageError
from steadygrad.records import Severity, to_json
from steadygrad.signals import probe
from steadygrad.training import TrainingSetup

from .networks import inputs, labels, plain, scaled, setup

CODES = [
    *(101, 102, 103, 104, 105, 106, 107, 201, 202, 203, 204, 205, 301, 302, 303, 401, 402),
    *range(501, 523),
    *range(601, 612),
    *range(801, 806),
    *range(901, 906),
]


@pytest.mark.parametrize("device", [None, "cpu", "meta"])
def test_a_set_up_is_looked_at_on_its_own_device(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainingSetup] = []
    measured = probe(setup(plain(3)))
    monkeypatch.setattr("steadygrad.diagnosis.verdict.probe", lambda given: seen.append(given) or measured)
    given = setup(plain(3), device=device)
    diagnose(given)
    assert {parameter.device.type for parameter in seen[0].model.parameters()} == {device or "cpu"}
    assert (seen[0] is given) == (device != "meta")  # a copy only where it has to move
    assert {parameter.device.type for parameter in given.model.parameters()} == {"cpu"}


def test_the_codes_are_stable() -> None:
    assert sorted(RULES) == [f"SG{code}" for code in CODES]
    assert all(rule.code == code for code, rule in RULES.items())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_is_explained_in_full_sentences(rule: Rule) -> None:
    for text in (rule.meaning, rule.threshold, rule.source, rule.advice):
        assert text.endswith(".")
        assert "  " not in text
    assert rule.title.replace("Boltzmann", "") == rule.title.replace("Boltzmann", "").lower()


def test_worst_findings_stand_first() -> None:
    diagnosis = diagnose(setup(scaled(plain(6), "4", 1e-4)))
    keys = [(-finding.severity, finding.code) for finding in diagnosis.findings]
    assert keys == sorted(keys)
    assert [finding.severity for finding in diagnosis.findings][:: len(keys) - 1] == [Severity.ERROR, Severity.WARNING]
    assert not diagnosis.healthy


def test_judging_measurements_equals_diagnosing_the_setup() -> None:
    sick = setup(scaled(plain(6), "4", 1e-4))
    assert judge(*probe(sick)) == diagnose(sick)


def test_rules_are_selected_and_ignored_by_prefix() -> None:
    sick = setup(scaled(plain(6), "4", 1e-4))
    everything = {finding.code for finding in diagnose(sick).findings}
    assert everything == {"SG101", "SG102", "SG401"}
    assert {finding.code for finding in diagnose(sick, select=["sg1"]).findings} == {"SG101", "SG102"}
    assert {finding.code for finding in diagnose(sick, select=["SG1"], ignore=["SG102"]).findings} == {"SG101"}
    assert diagnose(sick, ignore=["SG"]).findings == ()
    assert [rule.code for rule in select_rules(["SG30"])] == ["SG301", "SG302", "SG303"]


@pytest.mark.parametrize("argument", ["select", "ignore"])
def test_an_unknown_code_is_told_with_the_nearest(argument: str) -> None:
    with pytest.raises(UsageError, match=r"expected a rule code, got 'SG699'\. Did you mean SG60\d\?"):
        diagnose(setup(plain(2)), **{argument: ["SG699"]})


def test_a_code_that_is_like_none_points_to_the_list() -> None:
    with pytest.raises(UsageError, match="steadygrad rules lists them"):
        explain("nonsense")
    assert explain("sg101") is RULES["SG101"]


def test_a_diagnosis_with_nan_and_infinity_is_plain_json() -> None:
    x = inputs()
    x[0, 0] = math.nan
    broken = scaled(plain(4), "2", 1e-30)
    nn.init.constant_(broken[4].weight, math.inf)
    diagnosis = diagnose(setup(broken, x))
    text = to_json(diagnosis)
    plain_data = json.loads(text, parse_constant=lambda name: pytest.fail(f"bare {name} in JSON"))
    assert plain_data["observation"]["loss"] == "nan"
    assert [finding["code"] for finding in plain_data["findings"]] == [finding.code for finding in diagnosis.findings]


def test_a_batch_of_one_judges_nothing_that_needs_a_batch() -> None:
    sick = plain(8)
    nn.init.constant_(sick[6].bias, -99.0)  # dead, and the output is constant
    codes = {finding.code for finding in diagnose(setup(sick, inputs(1, 16), labels(1))).findings}
    assert codes.isdisjoint({"SG102", "SG202", "SG301", "SG302", "SG604"})
