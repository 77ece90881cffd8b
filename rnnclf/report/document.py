"""What stands in a report, as plain data: chapters of sections of blocks. All text is text, never markup."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Words:
    """A paragraph for each sentence or group of sentences."""

    kind: ClassVar[str] = "words"
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Points:
    """A list; `is_doubt`: of reasons to doubt the results."""

    kind: ClassVar[str] = "points"
    items: tuple[str, ...]
    is_doubt: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart, as the SVG that `drawing.PageDrawer` returns."""

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Figures:
    """Charts side by side where there is room."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Cell:
    """text: what is shown. value: by which rows are sorted; the text if it is None."""

    text: str
    value: float | None = None
    is_strong: bool = False

    @property
    def is_number(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its name. Readers may sort by any column, and filter long tables."""

    kind: ClassVar[str] = "table"
    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Lines below it, such as what its marks mean."""
    is_sortable: bool = True
    is_numeric: bool = False
    """Whether all columns but the first hold numbers, also where cells have no value."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it holds numbers, which stand on the right."""
        if self.is_numeric:
            return (False, *[True] * (len(self.titles) - 1))
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.titles)
        return tuple(any(cell.is_number for cell in column) for column in columns)


@dataclass(frozen=True)
class DrawnMistake:
    """A sequence that was misclassified. picture: the address of a PNG; series: an SVG; '' for none of it."""

    id: str
    place: str
    label: str
    predicted: str
    probability: float
    probability_of_label: float | None
    picture: str = ""
    series: str = ""


@dataclass(frozen=True)
class Gallery:
    """Mistakes, each with a drawing. classes: their labels, to filter by."""

    kind: ClassVar[str] = "gallery"
    mistakes: tuple[DrawnMistake, ...]
    channels: tuple[tuple[str, str], ...] = ()
    """The names of the drawn channels and the colours of their lines."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(mistake.label for mistake in self.mistakes))


@dataclass(frozen=True)
class Commands:
    """Lines to be typed into a shell, each with what it does."""

    kind: ClassVar[str] = "commands"
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folded:
    """A table that is shown on request."""

    kind: ClassVar[str] = "folded"
    title: str
    table: Table


Block = Words | Points | Figures | Table | Gallery | Commands | Folded


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Headline:
    """The result in large figures. figure: such as 96.4 %; what: what it is; beside: what it must be compared
    with."""

    figure: str
    what: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """What is reported of one run or one sweep."""

    title: str
    lead: tuple[str, ...]
    """What was done, as paragraphs for a reader who was not there."""
    headline: Headline | None
    sections: tuple[Section, ...]
    key: str = ""
    """Of the anchor: unlike that of any other chapter."""


@dataclass(frozen=True)
class Document:
    """A whole page. overview: a table of its chapters, if there are several."""

    title: str
    chapters: tuple[Chapter, ...]
    overview: Table | None = None
    made: str = ""
    """By what and when."""
    notes: tuple[str, ...] = field(default=())


def sections(parts: Iterable[tuple[str, Iterable[Block | None]]]) -> tuple[Section, ...]:
    """Sections of the blocks that are there; those without any are left out."""
    found = ((title, tuple(block for block in blocks if block is not None)) for title, blocks in parts)
    return tuple(Section(title, blocks) for title, blocks in found if blocks)
