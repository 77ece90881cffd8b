"""Reports in a real browser: nothing hostile runs, nothing is requested, and they fit on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.test_page import hostile_document

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A report made of hostile names, whose gallery has mistakes of different confidence."""
    from rnnclf.report.page import page

    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(hostile_document()), encoding="utf-8")
    return path


class Opened:
    """A page, with everything that it asked for or complained about."""

    def __init__(self, browser, file: Path, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.heard: list[str] = []
        self.page.on("request", lambda request: self.heard.append(request.url))
        self.page.on("console", lambda message: self.heard.append(message.text))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on("dialog", lambda dialog: self.heard.append(dialog.message))
        self.page.goto(file.as_uri())


@pytest.fixture
def opened(browser, file) -> Iterator[Opened]:
    found = Opened(browser, file)
    yield found
    found.context.close()


def test_nothing_hostile_runs_and_nothing_is_requested(opened, file):
    page = opened.page
    assert page.title() != "run"
    assert page.title().startswith("<script>")
    assert opened.heard == [file.as_uri()]
    page.hover("text=taken for >> nth=0")
    assert page.locator("script").count() == 1
    assert page.locator("main").is_visible()  # the hostile style does not hide it


def test_a_script_that_came_through_would_not_run(browser, file, tmp_path):
    broken = tmp_path / "broken.html"
    text = file.read_text(encoding="utf-8")
    broken.write_text(
        text.replace("</main>", "<script>document.title='run'</script></main>"), encoding="utf-8"
    )
    found = Opened(browser, broken)
    assert found.page.title() != "run"
    assert any("Content Security Policy" in line for line in found.heard)
    found.context.close()


def test_tables_are_sorted_and_mistakes_filtered(opened):
    page = opened.page
    table = page.locator("article table.sortable").first
    head = table.locator("thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert table.locator("tbody tr").first.locator("td").first.get_attribute("data-value") == "1.0"
    head.locator("button").click()
    assert table.locator("tbody tr").first.locator("td").first.get_attribute("data-value") is None
    gallery = page.locator(".gallery").first
    gallery.locator(".filter").select_option(index=3)
    assert gallery.locator(".mistake:visible").count() == 1
    assert "{{7*7}}" not in gallery.locator(".mistake:visible .class").first.inner_text()
    assert gallery.locator(".shown").inner_text() == "1 of 7"


def test_the_figures_of_a_mark_are_shown_when_one_points_at_it(browser, tmp_path):
    pytest.importorskip("altair")
    from rnnclf.report import charts
    from rnnclf.report.document import Chapter, Document, Figure, Figures, Section
    from rnnclf.report.drawing import PageDrawer
    from rnnclf.report.page import page

    svg = PageDrawer()(charts.confusion(("<b>", "c"), ((3, 1), (0, 5))), "confusions")
    chapter = Chapter("a", (), None, (Section("b", (Figures((Figure(svg),)),)),))
    (tmp_path / "page.html").write_text(page(Document("c", (chapter,))), encoding="utf-8")
    found = Opened(browser, tmp_path / "page.html")
    place = found.page.locator('[aria-label^="1 of 4 sequences"]').bounding_box()
    found.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    assert found.page.locator("#tip").inner_text() == "1 of 4 sequences of <b> are taken for c"
    found.page.mouse.move(1, 1)
    assert not found.page.locator("#tip").is_visible()
    found.context.close()


def test_it_fits_on_a_phone_and_is_readable_without_scripts(browser, file):
    found = Opened(browser, file, viewport={"width": 390, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") == 390
    found.context.close()
    found = Opened(browser, file, java_script_enabled=False)
    assert found.page.locator(".mistake").first.is_visible()
    assert not found.page.locator(".controls").first.is_visible()
    found.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(browser, file, scheme):
    """4.5 to 1 is the least contrast for text in WCAG 2."""
    found = Opened(browser, file, color_scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}'))"
    paper = found.page.evaluate(style.format("body") + ".backgroundColor")
    for place in ("h1", ".note", ".wrong", "code", ".doubts li", ".headline .figure"):
        ink = found.page.evaluate(style.format(place) + ".color")
        assert contrast(ink, paper) >= 4.5, place
    found.context.close()


def contrast(first: str, second: str) -> float:
    """Of two colours such as rgb(1, 2, 3)."""
    lights = sorted(map(_light, (first, second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _light(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
