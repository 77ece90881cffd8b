"""The leaderboard of a folder of runs: a table for each data set, reading and protocol, with the published
accuracies of the same task beside it. Prints nothing, imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnclf.cells import CELLS
from rnnclf.cells.base import Published
from rnnclf.workflows.contenders import Contender, Contest, Judged, contests, find_runs, titles
from rnnclf.workflows.listing import refuse_no_folder


@dataclass(frozen=True)
class PublishedFigure:
    """A published accuracy of one of our cells."""

    cell: str
    figure: Published


@dataclass(frozen=True)
class BoardSection:
    """The configurations that were judged on the same sequences, best validation accuracy first."""

    title: str
    """What tells the data from the others."""
    contest: Contest
    task: str | None
    """What papers call the task: psMNIST; None if no cell knows a figure for it."""
    published: tuple[PublishedFigure, ...]
    """Best first."""

    @property
    def contenders(self) -> tuple[Contender, ...]:
        return self.contest.contenders

    def to_dict(self) -> dict[str, Any]:
        judged = self.contest.judged
        return {
            "title": self.title,
            **{"data": judged.data, "protocol": judged.protocol, "permutation": judged.permutation},
            **{"fingerprint": judged.fingerprint, "reading": json.loads(judged.reading)},
            "splits": json.loads(judged.splits),
            "configurations": [
                {
                    "name": contender.name,
                    **contender.candidate.to_dict(),
                    "runs": [str(run.folder.path) for run in contender.runs.values()],
                }
                for contender in self.contenders
            ],
            "task": self.task,
            "published": [{"cell": known.cell, **asdict(known.figure)} for known in self.published],
        }


@dataclass(frozen=True)
class Board:
    """All configurations below a folder."""

    folder: Path
    sections: tuple[BoardSection, ...]
    unfinished: int
    """The number of runs that are not done."""

    @property
    def replaced(self) -> int:
        """The number of runs that are left out because a newer one is their repetition."""
        return sum(section.contest.replaced for section in self.sections)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"folder": str(self.folder), "unfinished": self.unfinished, "replaced": self.replaced},
            "sections": [section.to_dict() for section in self.sections],
        }


def leaderboard(folder: Path) -> Board:
    """The finished runs below a folder. Raises ConfigError if it does not exist."""
    refuse_no_folder(folder)
    found = find_runs([folder])
    all_contests = contests(found)
    named = zip(titles([contest.judged for contest in all_contests]), all_contests, strict=True)
    sections = sorted((_section(*each) for each in named), key=lambda section: section.title)
    return Board(folder, tuple(sections), found.unfinished)


def _section(title: str, contest: Contest) -> BoardSection:
    task = task_of(contest.judged)
    published = sorted(_published(task), key=lambda known: -known.figure.accuracy)
    return BoardSection(title, contest, task if published else None, tuple(published))


def task_of(judged: Judged) -> str | None:
    """What papers call these data, read in this way; None if they have no name for it."""
    reading = json.loads(judged.reading)
    permuted = judged.permutation not in (None, "none")
    match judged.dataset, reading.get("sequence"):
        case "mnist", "pixels":
            return "psMNIST" if permuted else "sMNIST"
        case "mnist", "rows":
            return "MNIST rows"
        case "cifar10", "pixels" if not permuted and str(reading.get("picture")).endswith("× 3"):
            return "sCIFAR"
    return None


def _published(task: str | None) -> Iterator[PublishedFigure]:
    for name, kind in CELLS.items():
        for figure in kind.published:
            if figure.task == task:
                yield PublishedFigure(name, figure)
