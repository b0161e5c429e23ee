"""Every kind of page in a real browser: it asks for nothing, nothing fails, and mouse and keyboard do the same.

Needs Chromium: the one that ``STEADYGRAD_CHROMIUM`` names, else the system's (``apt-get install chromium``).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.report.samples import HOSTILE
from tests.report.test_page import PAGES

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
).split()
Show = Callable[[str], Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("STEADYGRAD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "needs Chromium: apt-get install chromium, or name another one in STEADYGRAD_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Open a page of ``PAGES``; at the end, nothing may have been said on the console or asked of the network."""
    said: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme="light")

    def open_page(name: str) -> Page:
        file = tmp_path / "page.html"
        file.write_text(PAGES[name](), encoding="utf-8")
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    context.close()
    assert said == []
    assert {url for url in asked if not url.endswith("/page.html") and not url.startswith("data:")} == set()


@pytest.mark.parametrize("name", [name for name in PAGES if name != "notebook"])
def test_a_page_opens_and_fits_a_phone(show: Show, name: str) -> None:
    page = show(name)
    assert page.locator("h1").count() == 1
    assert page.locator("button.theme").count() == 1, "the script ran"
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_filters_and_samples_are_seen(show: Show) -> None:
    page = show("belief network")
    drawn = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert drawn == [1 + 7 * 9, 1 + 10 * 9], "40 filters and 100 samples of 8 x 8 pixels with gaps between"
    assert all(page.locator("img").evaluate_all("images => images.map(image => image.alt)"))
    slider = page.get_by_role("slider").first
    slider.press("Home")
    assert "step 1" in page.locator("figure output").first.inner_text()


def test_hostile_words_stand_as_text(show: Show) -> None:
    page = show("hostile run")
    assert HOSTILE[:30] in page.locator("h1 + p").inner_text()
    assert page.locator("script").count() == 1


def test_the_theme_follows_the_system_until_the_button_is_pressed(show: Show) -> None:
    page = show("treatment")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert dark != light
    page.emulate_media(color_scheme="light")
    page.locator("button.theme").press("Enter")
    assert page.evaluate(paper) == dark
    assert page.locator("button.theme").inner_text() == "Light page"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.theme')).display") == "none"


def test_a_table_is_sorted_by_a_press_of_its_column_head(show: Show) -> None:
    page = show("treatment")
    table = page.locator("section:has(h2:text-is('Tried')) table")

    def scores() -> list[str]:
        return table.locator("tbody tr td:nth-child(3)").all_inner_texts()

    head = table.get_by_role("button", name="score")
    head.press("Enter")
    assert scores() == ["0.104", "0.948", "–", "diverged"]
    assert table.locator("th[aria-sort='ascending']").inner_text() == "score"
    head.press("Enter")
    assert scores() == ["0.948", "0.104", "–", "diverged"], "what is no number stays last"


def test_a_course_is_read_and_zoomed_by_keyboard(show: Show) -> None:
    page = show("run")
    course = page.locator("figure:has(svg.sg-zoom)").first
    whole = course.locator("svg").first.inner_html()
    slider, said = course.get_by_role("slider"), course.locator("output")
    slider.press("Home")
    assert re.match(r"step 0: loss 2\.3 · arrived 0\.\d+ · used 0\.\d+ · learning rate 0\.1$", said.inner_text())
    for _ in range(3):
        course.get_by_role("button", name="Zoom in").press("Enter")
    ends = course.locator(".sg-grid").first.locator("text").all_text_contents()[-2:]
    assert ends == ["step 0", "step 74"]
    course.get_by_role("button", name="Whole run").press("Enter")
    course.locator(".sg-cursor").first.evaluate("cursor => cursor.remove()")
    assert course.locator("svg").first.inner_html() == whole


def test_a_course_is_zoomed_by_dragging_and_shows_what_is_not_finite(show: Show) -> None:
    page = show("run")
    chart = page.locator("svg.sg-zoom").nth(1)
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    unit = box["width"] / 460
    page.mouse.move(box["x"] + 400 * unit, box["y"] + 150 * unit)
    page.mouse.down()
    page.mouse.move(box["x"] + 448 * unit, box["y"] + 150 * unit, steps=4)
    page.mouse.up()
    first, last = chart.locator(".sg-grid text").all_text_contents()[-2:]
    assert 500 < int(first.removeprefix("step ")) < 530
    assert last == "step 590"
    assert "l8 8" in (chart.locator("g > path[d*='l8']").first.get_attribute("d") or "")
    chart.dblclick()
    assert chart.locator(".sg-grid text").all_text_contents()[-2] == "step 0"


def test_a_heat_map_is_read_by_mouse_and_keyboard(show: Show) -> None:
    page = show("run")
    figure = page.locator("figure:has(svg.sg-heat)").first
    said = figure.locator("output")
    figure.locator("svg.sg-heat").hover(position={"x": 300, "y": 70})
    assert re.match(r"net\.\d+, steps? \d+.*: \d", said.inner_text())
    figure.get_by_role("combobox").select_option("net.22")
    figure.get_by_role("slider").press("End")
    assert said.inner_text().startswith("net.22, step")
    assert said.inner_text().endswith("not finite")
