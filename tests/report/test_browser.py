"""The page in a browser: nothing scrolls sideways, nothing complains, and both themes apply."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esckit.report import write_report
from tests.mining.tree_search.searched import searched
from tests.report.folder import make_run
from tests.report.search_folder import hostile, make_search_run

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_and_is_silent(browser: Any, report: Path, width: int, theme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert complaints == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 200) == (theme == "dark")
    page.close()


def test_charts_take_the_page_s_colours_and_stay_inside(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(report.as_uri())
    inside = "[...document.querySelectorAll('.chart text')].every(t => t.getBoundingClientRect().right <= innerWidth)"
    assert page.evaluate(inside)
    ink = "getComputedStyle(document.querySelector('.chart text[style*=\"--ink\"]')).fill"
    assert page.evaluate(ink) == page.evaluate("getComputedStyle(document.body).color")
    page.close()


def test_print_is_light_and_unfolded(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 680, "height": 1000}, color_scheme="dark")  # A4 between its margins
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    assert page.get_by_text("Bradley-Terry").first.is_visible()
    page.close()


def test_an_unfolded_tree_fits_a_telephone(browser: Any, tmp_path: Path) -> None:
    report = write_report(make_search_run(tmp_path, [hostile(searched(5000))]))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.as_uri())
    assert not page.get_by_text("Gold reply 1.").is_visible()  # the tree is folded
    page.focus(".tree > summary")
    page.keyboard.press("Enter")
    assert page.get_by_text("Gold reply 1.").is_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")  # with ways folded, and unfolded
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    widths = "[...document.querySelectorAll('.way > .said, .step > .said')].map(said => said.clientWidth)"
    assert min(page.evaluate(widths)) > 250
    page.close()
