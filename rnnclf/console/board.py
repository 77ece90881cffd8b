"""The tables of `rnnclf board`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rnnclf.console.screen import screen, short
from rnnclf.console.sheets import Sheet
from rnnclf.console.sweep import columns_of, section_tables
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import METRICS
from rnnclf.workflows.board import Board, BoardSection
from rnnclf.workflows.compare_words import BASELINE
from rnnclf.workflows.contenders import Contender
from rnnclf.workflows.sweep import Section
from rnnclf.workflows.sweep_words import MOST_DOUBTS, legend

PUBLISHED = ("published on", "accuracy", "cell", "how", "where")


def show_board(board: Board) -> None:
    console = screen()
    if not board.sections:
        console.print(Text(f"no finished runs below {short(board.folder)}"))
    else:
        console.print(board_tables(board, console.width))


def board_tables(board: Board, width: int) -> Group:
    parts: list[RenderableType] = []
    for section in board.sections:
        parts.append(Text(one_line(title_of(section)), style="bold"))
        parts += section_tables(section_of(section), [], width, jobs=False)
        if section.published:
            parts.append(_published(section))
    lines = [*legend([section_of(section) for section in board.sections]), *notes_of(board)]
    return Group(*parts, Text("\n".join(map(one_line, lines)), style="dim"))


def section_of(section: BoardSection) -> Section:
    judged = section.contest.judged
    candidates = tuple(contender.candidate for contender in section.contenders)
    return Section(judged.data, judged.protocol, (), candidates)


def title_of(section: BoardSection) -> str:
    """The data, how they are divided where others are divided in another way, the protocol, the order of
    pixels, and the start of the checksum of the data."""
    judged = section.contest.judged
    protocol = (
        [] if judged.protocol == "tutorial" else [f"{judged.protocol} protocol"]
    )  # which the title says
    order = [] if judged.permutation in (None, "none") else [f"permutation {judged.permutation}"]
    return ", ".join([section.title, *protocol, *order, f"data {judged.fingerprint[:8]}"])


def _published(section: BoardSection) -> PlainTable:
    table = PlainTable(*PUBLISHED)
    for row in published_rows(section):
        table.add_row(*row)
    return table


def published_rows(section: BoardSection) -> list[tuple[str, ...]]:
    return [
        (known.figure.task, f"{known.figure.accuracy} %", known.cell, known.figure.note, known.figure.source)
        for known in section.published
    ]


def notes_of(board: Board) -> Iterator[str]:
    """What the tables do not show."""
    yield "ranked by validation accuracy within each table"
    if any(
        contender.candidate.is_single_baseline
        for section in board.sections
        for contender in section.contenders
    ):
        yield BASELINE
    if any(section.published for section in board.sections):
        yield (
            "published figures are for orientation: papers divide the data in other ways, choose models by"
            " other rules and, of psMNIST, use other permutations"
        )
    doubts = dict.fromkeys(
        doubt
        for section in board.sections
        for contender in section.contenders
        for run in contender.candidate.done
        for doubt in run.doubts
    )
    for number, doubt in enumerate(doubts):
        if number < MOST_DOUBTS:
            yield f"!: {doubt}"
        else:
            yield f"!: {len(doubts) - MOST_DOUBTS} more warnings are in the JSON (--json)"
            break
    if board.unfinished:
        yield f"runs that are not done, and left out: {board.unfinished}"
    if board.replaced:
        yield f"runs left out because a newer one has the same configuration and seed: {board.replaced}"


def sheets_of(board: Board) -> list[Sheet]:
    """The tables for papers."""
    sheets = []
    for section in board.sections:
        own = section_of(section)
        first, second = columns_of(own)
        columns = first | second
        rows = tuple(
            (_place(c), c.name, *(show(c.candidate) for show in columns.values())) for c in section.contenders
        )
        title = title_of(section)
        sheets.append(Sheet(title, ("", "with", *columns), rows, tuple(legend([own])), words=(0, 1)))
        if section.published:
            sheets.append(
                Sheet(
                    f"{title}: published",
                    PUBLISHED,
                    tuple(published_rows(section)),
                    words=range(len(PUBLISHED)),
                )
            )
    return sheets


def _place(contender: Contender) -> str:
    return "" if contender.candidate.rank is None else str(contender.candidate.rank)


def lines_of(board: Board) -> list[dict[str, Any]]:
    """A line for each configuration, for CSV."""
    return [line for section in board.sections for line in _lines(section)]


def _lines(section: BoardSection) -> Iterator[dict[str, Any]]:
    judged = section.contest.judged
    same = {
        "data": section.title,
        "protocol": judged.protocol,
        "permutation": judged.permutation,
        "fingerprint": judged.fingerprint,
    }
    for contender in section.contenders:
        found = contender.candidate
        low, high = found.interval95 or (None, None)
        yield {
            **same,
            **{"rank": found.rank, "configuration": contender.name, "runs": len(found.done)},
            **{"folds": found.folds, "validation_accuracy": found.validation.mean},
            **{"validation_sd": found.validation.sd, "test_accuracy": found.accuracy},
            **{"test_sd": found.test.sd, "test_low": low, "test_high": high, "p": found.p},
            **{f"test_{metric.key}": found.mean_of("test", metric.key) for metric in METRICS},
            "parameters": found.mean_of("parameters"),
            "seconds": found.mean_of("total_seconds"),
        }
