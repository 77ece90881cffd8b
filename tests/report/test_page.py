"""The page of a report: nothing in it runs but its own script, and nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from rnnclf.report.document import (
    Cell,
    Chapter,
    Commands,
    Document,
    DrawnMistake,
    Figure,
    Figures,
    Folded,
    Gallery,
    Headline,
    Points,
    Section,
    Table,
    Words,
)
from rnnclf.report.page import page
from tests.report.hostile import NAMES


def hostile_document() -> Document:
    """A document in which all text is made of hostile names."""
    mistakes = tuple(DrawnMistake(name, name, name, name, 0.9, 0.1) for name in NAMES)
    table = Table(
        NAMES, (tuple(Cell(name) for name in NAMES), tuple(Cell(name, 1.0, True) for name in NAMES))
    )
    blocks = (
        Words(NAMES),
        Points(NAMES, is_doubt=True),
        Figures((Figure("<svg></svg>", NAMES[0]),)),
        table,
        Gallery(mistakes, tuple((name, "var(--series-1)") for name in NAMES)),
        Commands(tuple(zip(NAMES, NAMES, strict=True))),
        Folded(NAMES[0], table),
    )
    chapters = tuple(
        Chapter(name, NAMES, Headline(name, name, NAMES), (Section(name, blocks),), f"part{number}")
        for number, name in enumerate(NAMES)
    )
    return Document(NAMES[0], chapters, table, NAMES[0], NAMES)


class Seen(HTMLParser):
    """The tags and attributes of a page, its scripts and its other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return page(hostile_document())


def test_hostile_names_stay_text(html):
    seen = Seen(html)
    names = {tag for tag, _ in seen.tags}
    assert not names & {"u", "b"}
    assert [tag for tag, _ in seen.tags].count("script") == len(seen.scripts) == 1
    assert [tag for tag, _ in seen.tags].count("style") == 1
    assert "img" not in names
    assert not [name for _, given in seen.tags for name in given if name.startswith("on")]
    for name in (NAMES[0], NAMES[1], NAMES[2], NAMES[3], NAMES[4], NAMES[6]):
        assert name in seen.text
    assert "49" not in seen.text


def test_nothing_changes_a_terminal_or_the_direction_of_writing(html):
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html)
    assert "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}right to left" in html


def test_only_the_script_of_the_page_may_run_and_nothing_is_requested(html):
    seen = Seen(html)
    (policy,) = (given["content"] for _, given in seen.tags if "http-equiv" in given)
    digest = base64.b64encode(hashlib.sha256(seen.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for tag, given in seen.tags:
        for key in ("src", "href", "action", "data", "xlink:href"):
            if key in given:
                assert (given[key] or "").startswith(("#", "data:image/png;")), (tag, given)
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html


def test_what_needs_the_script_is_hidden_without_it(html):
    controls = [given for _, given in Seen(html).tags if given.get("class") == "controls"]
    assert len(controls) == len(NAMES)
    assert all("hidden" in given for given in controls)


def test_columns_of_numbers_are_known():
    table = Table(("a", "b"), ((Cell("x"), Cell("1", 1.0)), (Cell("y"), Cell("–"))))
    assert table.numeric == (False, True)
    assert Table(("a", "b"), ((Cell("x"), Cell("1 of 2")),), is_numeric=True).numeric == (False, True)
    assert Table(("a", "b"), ()).numeric == (False, False)
