from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest

import steadygrad.boltzmann.pretraining  # noqa: F401  # it adds itself to the catalogue
from steadygrad import remedies
from steadygrad.cli.main import main
from steadygrad.errors import UsageError
from steadygrad.records import Symptom
from steadygrad.remedies import CATALOGUE, GLOSSARY, find
from steadygrad.remedies.remedy import Factory


def test_no_remedy_is_missing_and_no_name_is_taken_twice() -> None:
    modules = [import_module(f"steadygrad.remedies.{module.name}") for module in iter_modules(remedies.__path__)]
    made = {thing for module in modules for thing in vars(module).values() if isinstance(thing, Factory)}
    assert made <= set(CATALOGUE.values())
    assert len({factory.card.name for factory in made}) == len(made)


def test_every_card_says_what_it_does_not_cure_when_it_hurts_its_formula_source_and_cost() -> None:
    for card in (factory.card for factory in CATALOGUE.values()):
        missing = [field for field in ("not_for", "hurts", "formula", "reference", "cost") if not getattr(card, field)]
        assert not missing, card.name


def test_the_glossary_leads_to_remedies_that_exist_and_settings_that_they_have() -> None:
    for term in GLOSSARY:
        assert term.remedy in CATALOGUE or (not term.remedy and term.note), term
        if term.note.startswith(f"{term.remedy}("):
            call = term.note.partition(")")[0] + ")"
            eval(call, {term.remedy: CATALOGUE[term.remedy]})


def test_names_are_found_however_they_are_written() -> None:
    assert find("max-norm").remedy == "max_norm"
    assert find("He Initialization").remedy == "initialization"
    assert find("AdaGrad-TC").note.startswith("No paper of that name was found")
    with pytest.raises(UsageError, match=r"got 'labl smoothing'. Did you mean 'label smoothing'?"):
        find("labl smoothing")


@pytest.mark.parametrize(
    "name", ["AGC", "RBM", "BatchNorm", "L2", "Xavier", "leaky ReLU", "ReZero", "FGSM", "truncated BPTT"]
)
def test_short_names_are_found_too(name: str) -> None:
    assert find(name).remedy in CATALOGUE


@pytest.fixture
def wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_command_lists_all_or_those_for_a_symptom(capsys, wide) -> None:
    assert main(["remedies"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert main(["remedies", "--treats", "dead_units"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == [name for name, factory in CATALOGUE.items() if Symptom.DEAD_UNITS in factory.card.treats]


def test_the_command_shows_a_card_by_any_name(capsys, wide) -> None:
    assert main(["remedies", "max_norm"]) == 0
    card = capsys.readouterr().out
    assert "Does not cure" in card
    assert "bound=3.0, over='unit'" in card
    assert main(["remedies", "weight clipping"]) == 0
    assert "Asked for" in capsys.readouterr().out
    assert main(["remedies", "per-example clipping"]) == 0
    assert "use Opacus" in capsys.readouterr().out


def test_wrong_names_and_symptoms_are_refused(capsys) -> None:
    assert main(["remedies", "batchnrm"]) == 2
    assert main(["remedies", "--treats", "sadness"]) == 2
    assert "expected one of vanishing, exploding" in capsys.readouterr().err.replace("\n", " ")
    assert main(["remedies", "residual", "--treats", "vanishing"]) == 2
