from __future__ import annotations

import os
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from steadygrad.boltzmann import DBN, RBM
from steadygrad.boltzmann.page import network_page
from steadygrad.diagnosis import RULES
from steadygrad.records import Verdict
from steadygrad.report import diagnosis_page, notebook_html, run_page, treatment_page
from steadygrad.training.datasets import load

from .samples import (
    CURE,
    HOSTILE,
    SUMMARY,
    alarms,
    finding,
    healthy,
    history,
    hostile,
    hostile_history,
    hostile_summary,
    proof,
    sick,
    trials,
)

VOID = {"meta", "br", "img"}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
LOADING = {"link", "iframe", "object", "embed", "image", "use", "base", "form"}


class Reader(HTMLParser):
    """Checks that every element is closed in order, and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def full_treatment(notes: tuple[str, ...] = ("Stopped by the clock.",)) -> str:
    return treatment_page(sick(), healthy(24), trials(), proof(), Verdict.CURED, CURE, notes, RULES)


def belief_network() -> str:
    rows = load("digits").train[0].numpy()[:300]
    rbm = RBM(n_epochs=4, method="cd", learning_rate=5.0, early_stopping=True)
    network = DBN((40, 20), rbm=rbm, random_state=0).fit(rows)
    return network_page(network, {HOSTILE: HOSTILE}, steps=20)


PAGES = {
    "sick": lambda: diagnosis_page(sick(), RULES),
    "healthy": lambda: diagnosis_page(healthy(), RULES),
    "hostile": lambda: diagnosis_page(hostile(), RULES),
    "deep": lambda: diagnosis_page(sick(10_000), RULES),
    "treatment": full_treatment,
    "hostile treatment": lambda: treatment_page(
        hostile(), hostile(), trials(), replace(proof(), metric=HOSTILE), Verdict.IMPROVED, CURE, [HOSTILE], RULES
    ),
    "deep treatment": lambda: treatment_page(
        replace(sick(10_000), findings=tuple(finding(layer=f"net.{2 * i}") for i in range(10_000))),
        healthy(10_000),
        trials() * 50,
        proof(),
        Verdict.CURED,
        CURE,
        [],
        RULES,
    ),
    "untreated": lambda: treatment_page(sick(), None, [], None, Verdict.NOT_CURED, None, [], RULES),
    "run": lambda: run_page(history(), alarms(), SUMMARY, RULES),
    "long run": lambda: run_page(history(3, 20_000, every=50), alarms() * 100, SUMMARY, RULES),
    "deep run": lambda: run_page(history(10_000, 20), alarms(), SUMMARY, RULES),
    "hostile run": lambda: run_page(hostile_history(), [(7, hostile().findings[0])], hostile_summary(), RULES),
    "belief network": belief_network,
    "notebook": lambda: notebook_html(hostile()),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_small_and_loads_nothing(name: str) -> None:
    page = PAGES[name]()
    reader = read(page)
    assert LOADING.isdisjoint(reader.tags)
    names = {attribute for attribute, _ in reader.attributes}
    assert not any(attribute.startswith("on") for attribute in names)
    sources = [value or "" for attribute, value in reader.attributes if attribute == "src"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert names.isdisjoint({"href", "xlink:href", "srcset", "action"})
    shown = page.replace(SVG_NAMESPACE, "")  # a name, which nothing loads
    assert not re.search(r"https?://|url\(|@import", shown)
    assert reader.tags.count("script") == (name != "notebook")
    assert len(page.encode("utf-8")) < 1_000_000


@pytest.mark.parametrize("name", ["sick", "hostile", "treatment", "run", "hostile run", "belief network"])
def test_the_same_records_give_the_same_bytes(name: str) -> None:
    assert PAGES[name]() == PAGES[name]()


@pytest.mark.parametrize("name", ["hostile treatment", "hostile run", "belief network"])
def test_hostile_names_are_text(name: str) -> None:
    reader = read(PAGES[name]())
    assert "<script>alert('x')</script>[bold red]\\x1b[31m\\u202e&\"\\ud800" in reader.text
    assert "\u202e" not in reader.text


def test_a_diagnosis_page_tells_the_whole_story() -> None:
    text = read(diagnosis_page(sick(), RULES)).text
    for words in ("The trouble starts at net.8", "SG401", "Drop it.", "gain 0.3", "net.8 (guilty layer)", "Not seen"):
        assert words in text


def test_a_treatment_page_shows_outcome_trials_and_both_profiles() -> None:
    text = read(full_treatment()).text
    for words in ("0.954 ± 0.004", "stopped early", "700 optimizer steps", "Layers after", "Stopped by the clock."):
        assert words in text
    assert "nothing is proven" not in text


def test_an_untreated_page_claims_no_proof() -> None:
    text = read(PAGES["untreated"]()).text
    assert "Nothing was tried." in text
    assert "nothing is proven" in text
    assert "Layers after" not in text


def test_ten_thousand_layers_are_thinned_and_the_page_says_so() -> None:
    text = read(PAGES["deep treatment"]()).text
    assert "9,900 rows left out" in text
    assert "Thinned to 400 layers a line." in text
    assert "9,950 findings left out" in text


def test_a_run_page_shows_alarms_course_layers_and_what_was_not_seen() -> None:
    text = read(PAGES["run"]()).text
    for words in (
        "3 alarms: 2 errors, 1 warning",
        "step 590 error SG204 net.12",
        "Learning rate",
        "Layers at step 590",
    ):
        assert words in text
    for words in ("Update to weight ratio", "the outputs of 1 layer: head", "suggested 0.9", "failed with ValueError"):
        assert words in text


def test_long_and_deep_runs_are_thinned_and_the_page_says_so() -> None:
    long, deep = read(PAGES["long run"]()).text, read(PAGES["deep run"]()).text
    assert "Thinned to 2,000 of 20,000 looks a line, lowest and highest kept." in long
    assert "Marked: the first 50 of 300 alarms." in long
    assert "20,000 looks in 160 columns" in long
    assert "Thinned to 48 of 10,000 layers." in deep
    assert "9,800 rows left out" in deep


def test_the_policy_lets_only_the_pages_own_script_and_style_work() -> None:
    page = diagnosis_page(hostile(), RULES)
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page
    assert "unsafe" not in page


def test_every_color_has_a_dark_twin_and_the_page_prints() -> None:
    page = diagnosis_page(sick(), RULES)
    (block,) = re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)[:1]
    colors = re.findall(r"(--[\w-]+): (\S+)", block)
    assert all(value.startswith("light-dark(") for _, value in colors)
    assert set(re.findall(r"var\((--[\w-]+)", page)) <= {name for name, _ in colors}
    assert "@media print" in page


def test_a_code_is_explained_once_where_it_first_stands() -> None:
    page = treatment_page(sick(), None, [], None, Verdict.NOT_CURED, None, [], RULES)
    twice = replace(sick(), findings=(finding(layer="net.2"), finding(layer="net.4")))
    assert RULES["SG101"].title in read(page).text
    assert diagnosis_page(twice, RULES).count("<details>") == 1


def test_a_notebook_shows_a_diagnosis_as_the_fragment() -> None:
    assert sick()._repr_html_() == notebook_html(sick())  # type: ignore[attr-defined]  # attached by report


def test_importing_the_report_leaves_rich_alone(checkout: Path) -> None:
    code = "import sys, steadygrad.report; sys.exit('rich' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_the_page_of_a_treatment_holds_the_change_as_python_that_runs() -> None:
    (code,) = re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code></pre>", full_treatment(), re.DOTALL)
    places: dict[str, object] = {}
    wanted = "cured = sg.apply(sg.Prescription(("
    assert unescape(code).startswith(wanted)
    exec(
        f"import steadygrad as sg\nmade = {unescape(code).removeprefix('cured = sg.apply(').removesuffix(', setup)')}",
        places,
    )
    assert places["made"] == replace(CURE, rationale="", steps=tuple(replace(s, answers=()) for s in CURE.steps))
    assert "<pre" not in PAGES["untreated"]()
