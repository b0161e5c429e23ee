"""The claims' experiments run, their verdicts follow from numbers, and the page shows what is stored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from experiments.claims import __main__ as command
from experiments.claims import page, results
from experiments.claims.claim import ARTICLES, description, fingerprint, load_claims
from experiments.claims.results import Result
from experiments.claims.verdict import Answer, Condition, Ruling, Verdict

CLAIMS = load_claims()
STEADY = [1.0, 1.1, 0.9, 1.0, 1.0]


def result(seed: int) -> Result:
    numbers = {"variance times sqrt(2)": -3.0 - seed / 10}
    return Result(seed, numbers, 1.0, fingerprint("he_factor"), "2.13.0", "a machine", "2026-11-21")


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
def test_every_experiment_runs_and_is_judged() -> None:
    stored = {path: path.read_bytes() for path in results.FOLDER.glob("*.jsonl")}
    assert command.main(["--quick", "--workers", "1"]) == 0
    assert len(CLAIMS) >= 36
    assert {path: path.read_bytes() for path in results.FOLDER.glob("*.jsonl")} == stored  # nothing quick is kept


def test_an_experiment_gives_the_same_numbers_again() -> None:
    for name in ("sigmoid_vanishes", "clipping_stops_explosion"):
        first, second = (CLAIMS[name].measure(3, True) for _ in range(2))
        assert first == second != CLAIMS[name].measure(4, True)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let results and page go to an empty folder, and measure nothing in earnest."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "claims.md")
    monkeypatch.setattr(command, "measure_one", lambda session, unit: result(unit[1]))


@pytest.mark.usefixtures("elsewhere")
def test_an_interrupted_command_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def interrupted(session: command.Session, unit: command.Unit) -> Result:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(unit[1])
        return result(unit[1])

    arguments = ["--only", "he_factor", "--seeds", "6", "--workers", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(command, "measure_one", interrupted)
        assert command.main(arguments) == 130
        assert [each.seed for each in results.load("he_factor")] == measured == [0, 1]
    assert command.main(arguments) == 0
    assert [each.seed for each in results.load("he_factor")] == [0, 1, 2, 3, 4, 5]
    assert "| variance times sqrt(2) | -3.25 |" in page.PAGE.read_text(encoding="utf-8")


@pytest.mark.usefixtures("elsewhere")
def test_results_of_another_experiment_are_measured_again() -> None:
    results.save("he_factor", [replace(result(0), fingerprint="of another", numbers={})])
    assert results.load("he_factor") == []
    assert command.main(["--only", "he_factor", "--seeds", "2", "--workers", "1"]) == 0
    assert [each.fingerprint for each in results.load("he_factor")] == [fingerprint("he_factor")] * 2


@pytest.mark.usefixtures("elsewhere")
def test_a_claim_whose_data_are_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "measure_one", lambda session, unit: "There are no data.")
    assert command.main(["--only", "he_factor", "--workers", "1"]) == 1
    assert "he_factor: not measured. There are no data." in capsys.readouterr().err


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(SystemExit, match=r"Did you mean he_factor\?"):
        command.main(["--only", "he_faktor"])


def test_claims_were_measured_as_they_are_now() -> None:
    assert sum(len(results.load(name)) >= page.SEEDS for name in CLAIMS) >= 36, "run `make claims`"


def test_the_page_shows_what_is_stored(checkout: Path) -> None:
    assert (checkout / "docs" / "claims.md").read_text(encoding="utf-8") == page.text(), page.__doc__
