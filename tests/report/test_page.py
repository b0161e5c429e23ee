from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from steadygrad.records import Verdict
from steadygrad.report import diagnosis_page, notebook_html, treatment_page

from .samples import CURE, HOSTILE, finding, healthy, hostile, proof, sick, trials

VOID = {"meta", "br"}
LOADING = {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form"}


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
    return treatment_page(sick(), healthy(24), trials(), proof(), Verdict.CURED, CURE, notes)


PAGES = {
    "sick": lambda: diagnosis_page(sick()),
    "healthy": lambda: diagnosis_page(healthy()),
    "hostile": lambda: diagnosis_page(hostile()),
    "deep": lambda: diagnosis_page(sick(10_000)),
    "treatment": full_treatment,
    "hostile treatment": lambda: treatment_page(
        hostile(), hostile(), trials(), replace(proof(), metric=HOSTILE), Verdict.IMPROVED, CURE, [HOSTILE]
    ),
    "deep treatment": lambda: treatment_page(
        replace(sick(10_000), findings=tuple(finding(layer=f"net.{2 * i}") for i in range(10_000))),
        healthy(10_000),
        trials() * 50,
        proof(),
        Verdict.CURED,
        CURE,
    ),
    "untreated": lambda: treatment_page(sick(), None, [], None, Verdict.NOT_CURED, None),
    "notebook": lambda: notebook_html(hostile()),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_small_and_loads_nothing(name: str) -> None:
    page = PAGES[name]()
    reader = read(page)
    assert LOADING.isdisjoint(reader.tags)
    names = {attribute for attribute, _ in reader.attributes}
    assert not any(attribute.startswith("on") for attribute in names)
    assert names.isdisjoint({"src", "href", "xlink:href", "srcset", "action"})
    assert not re.search(r"https?://|url\(|@import", page)
    assert len(page.encode("utf-8")) < 1_000_000


@pytest.mark.parametrize("name", ["sick", "hostile", "treatment"])
def test_the_same_records_give_the_same_bytes(name: str) -> None:
    assert PAGES[name]() == PAGES[name]()


def test_hostile_names_are_text() -> None:
    reader = read(PAGES["hostile treatment"]())
    assert "<script>alert('x')</script>[bold red]\\x1b[31m\\u202e&\"\\ud800" in reader.text
    assert "\u202e" not in reader.text


def test_a_diagnosis_page_tells_the_whole_story() -> None:
    text = read(diagnosis_page(sick())).text
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


def test_every_color_has_a_dark_twin_and_the_page_prints() -> None:
    page = diagnosis_page(sick())
    light, dark = re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)[:2]
    colors = [set(re.findall(r"--[\w-]+(?=:)", block)) for block in (light, dark)]
    assert colors[0] == colors[1]
    assert set(re.findall(r"var\((--[\w-]+)", page)) <= colors[0]
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_a_notebook_shows_a_diagnosis_as_the_fragment() -> None:
    assert sick()._repr_html_() == notebook_html(sick())  # type: ignore[attr-defined]  # attached by report


def test_importing_the_report_leaves_rich_alone(checkout: Path) -> None:
    code = "import sys, steadygrad.report; sys.exit('rich' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
