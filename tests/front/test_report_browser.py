"""The page in a browser: nothing is loaded, nothing fails, and figures answer the pointer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agilerl.runs.report import page_of
from tests.front.test_analysis import ROWS, row
from tests.front.test_report import SETTINGS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

MANY = [
    row(g, i, float(g + i % 7), lr=1e-3 * (1 + i % 9), parent=i, architecture=f"{8 + i % 5}-8 relu")
    for g in range(200)
    for i in range(64)
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, rows in (("few", ROWS), ("many", MANY)):
        (folder / f"{name}.html").write_text(page_of(rows, SETTINGS, {}), "utf-8")
    return {name: folder / f"{name}.html" for name in ("few", "many")}


@pytest.mark.parametrize("name", ["few", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_works(browser: Any, pages: Any, name: str, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    plots = page.locator(".plotly-graph-div .main-svg")
    plots.first.wait_for()
    for part in ("fitness", "tree", "hyperparameters", "architecture"):  # drawn when it is seen
        page.locator(f"#plot-{part}").scroll_into_view_if_needed()
        page.locator(f"#plot-{part} .main-svg").first.wait_for()
    ignored = ("GPU stall", "WebGL", "GL Driver")  # a machine without a graphics card
    assert [text for text in problems if not any(word in text for word in ignored)] == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    # nothing sticks out to the right of a phone
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert page.evaluate("document.querySelector('#plot-fitness').layout.font.color") == ink
    if name == "few":
        point = page.locator("#plot-fitness .points path").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        page.locator("#plot-fitness .hoverlayer .hovertext").first.wait_for(timeout=5000)
    page.close()
