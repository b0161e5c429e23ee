"""The claims' experiments run, their verdicts follow from numbers, and the page shows what is stored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.claims import __main__ as command
from experiments.claims import page, results
from experiments.claims.claim import ARTICLES, description, fingerprint, load_claims
from experiments.claims.results import Result
from experiments.claims.verdict import Answer, Condition, Ruling, Verdict

CLAIMS = load_claims()
STEADY = [1.0, 1.1, 0.9, 1.0, 1.0]


def result(seed: int, name: str = "he_factor", **numbers: float) -> Result:
    return Result(seed, numbers, 1.0, fingerprint(name), "2.13.0", "a machine", "2026-11-21")


@pytest.mark.parametrize(
    ("least", "most", "answer"),
    [
        (0.5, math.inf, Answer.YES),
        (1.0, math.inf, Answer.UNCLEAR),
        (1.5, math.inf, Answer.NO),
        (-math.inf, 0.5, Answer.NO),
        (0.5, 1.5, Answer.YES),
        (0.0, 1.0, Answer.UNCLEAR),
    ],
)
def test_a_condition_asks_where_the_whole_interval_lies(least: float, most: float, answer: Answer) -> None:
    assert Condition("somewhere", STEADY, least, most).answer is answer


def test_the_interval_is_students() -> None:
    low, high = Condition("somewhere", [1.0, 2.0, 3.0]).interval
    assert (low, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-5)


def test_one_seed_decides_nothing() -> None:
    assert Condition("somewhere", [1.0], least=0.0).answer is Answer.UNCLEAR


@pytest.mark.parametrize(
    ("bounds", "ruling"),
    [
        ((0.5, 0.6), Ruling.HOLDS),
        ((0.5, 1.0), Ruling.CONDITIONS),
        ((0.5, 2.0), Ruling.CONDITIONS),
        ((1.0, 2.0), Ruling.UNDECIDED),
        ((2.0, 3.0), Ruling.FALSE),
    ],
)
def test_a_verdict_sums_up_its_conditions(bounds: tuple[float, ...], ruling: Ruling) -> None:
    assert Verdict(tuple(Condition(str(least), STEADY, least) for least in bounds)).ruling is ruling


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_tells_its_experiment_source_and_criterion(name: str) -> None:
    claim = CLAIMS[name]
    assert description(name).endswith(".")
    assert claim.sentence.endswith(".")
    assert claim.criterion.endswith(".")
    assert set(claim.articles) <= set(ARTICLES)


@pytest.mark.slow
def test_every_experiment_runs_and_is_judged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    stored = {path: path.read_bytes() for path in results.FOLDER.glob("*.jsonl")}
    assert command.main(["--quick"]) == 0
    assert len(CLAIMS) >= 36
    assert {path: path.read_bytes() for path in results.FOLDER.glob("*.jsonl")} == stored  # nothing quick is kept


def test_an_experiment_gives_the_same_numbers_again() -> None:
    for name in ("slopes_above_one", "sigmoid_vanishes", "gated_cells_do_not_explode"):
        first, second = (CLAIMS[name].measure(3, True) for _ in range(2))
        assert first == second != CLAIMS[name].measure(4, True)


def test_only_what_is_missing_is_measured_and_interruptions_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[int] = []

    def measure_one(machine: str, unit: command.Unit) -> Result:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(unit[1])
        return result(unit[1], **{"variance times sqrt(2)": -3.0 - unit[1] / 10})

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results.load, "__defaults__", (tmp_path,))
    monkeypatch.setattr(results.save, "__defaults__", (tmp_path,))
    monkeypatch.setattr(page, "PAGE", tmp_path / "claims.md")
    monkeypatch.setattr(page.write, "__defaults__", (tmp_path / "claims.md",))
    monkeypatch.setattr(command, "measure_one", measure_one)
    arguments = ["--only", "he_factor", "--seeds", "4"]
    assert command.main(arguments) == 130
    assert [each.seed for each in results.load("he_factor")] == [0, 1]
    measured.clear()
    measure_two = list(measured)
    assert command.main(arguments) in (0, 130)
    assert measured == [2, 3] and measure_two == []
