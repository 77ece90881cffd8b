"""Writes one HTML page on runs, sweeps and searches, which needs nothing else to be read. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.durations import seconds_in_words
from rnnclf.errors import CheckpointError, ConfigError, OutputError
from rnnclf.files import write_atomically
from rnnclf.metrics import interval, percent
from rnnclf.workflows.plots import INSTALL, PACKAGES
from rnnclf.workflows.sweep_folder import is_search, is_sweep

if TYPE_CHECKING:
    from rnnclf.report.document import Cell, Chapter, Document
    from rnnclf.workflows.report_run import Reported
    from rnnclf.workflows.report_search import SearchReported
    from rnnclf.workflows.report_sweep import SweepReported
    from rnnclf.workflows.sweep import Candidate

    AnyReported = Reported | SweepReported | SearchReported

NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    path: Path
    size: int
    """In bytes."""

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "bytes": self.size}


def report(paths: Sequence[Path], words: Sequence[str] = (), output: Path | None = None) -> Written:
    """Writes a report on the folders of runs, sweeps and searches.

    Args:
        words: overrides for the data, which may be elsewhere by now, and plugins; for drawing the mistakes.
        output: the file; None: report.html in the folder of the only path, or else in the current folder.

    Raises an RnnclfError if a path is no run, sweep or search with results, or if packages are missing.
    """
    if not all(map(find_spec, (*PACKAGES, "jinja2"))):
        raise ConfigError(f"A report needs Altair, vl-convert and Jinja2: {INSTALL}.")
    output = output or (paths[0] / NAME if len(paths) == 1 else Path(NAME))
    if output.is_dir():
        raise OutputError(f"{output} is a folder: name a file, such as {output / NAME}.")
    from rnnclf.report.page import page
    from rnnclf.workflows.loading import register_plugins_of

    register_plugins_of(words, "in a report")
    content = page(_document([_found(path) for path in paths], words)).encode()
    write_atomically(output, content)
    return Written(output, len(content))


def _found(path: Path) -> AnyReported:
    from rnnclf.workflows.report_run import reported
    from rnnclf.workflows.report_search import search_reported
    from rnnclf.workflows.report_sweep import sweep_reported
    from rnnclf.workflows.runs import RunFolder

    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: give a run folder or a sweep folder.")
    if is_search(path):
        return search_reported(path, str(path))
    return sweep_reported(path, str(path)) if is_sweep(path) else reported(RunFolder(path), str(path))


def _document(found: Sequence[AnyReported], words: Sequence[str]) -> Document:
    import rnnclf
    from rnnclf.report.document import Document, Table
    from rnnclf.report.drawing import PageDrawer
    from rnnclf.workflows.report_run import Reported, run_chapter
    from rnnclf.workflows.report_search import SearchReported, search_chapter
    from rnnclf.workflows.report_sweep import sweep_chapter

    draw = PageDrawer()
    chapters: list[Chapter] = []
    for number, each in enumerate(found, start=1):
        key = f"part{number}"
        if isinstance(each, Reported):
            chapters.append(run_chapter(each, words, draw, key))
        elif isinstance(each, SearchReported):
            chapters.append(search_chapter(each, words, draw, key))
        else:
            chapters.append(sweep_chapter(each, words, draw, key))
    made = f"Made by rnnclf {rnnclf.__version__} on {time.strftime('%Y-%m-%d %H:%M')}."
    if len(chapters) == 1:
        return Document(chapters[0].title, tuple(chapters), made=made)
    titles = ("", "test accuracy", "95 % interval", "data", "parameters", "time")
    rows = tuple(_overview(each, chapter) for each, chapter in zip(found, chapters, strict=True))
    notes = "rnnclf compare tells whether two of them differ by more than chance."
    table = Table(titles, rows)
    return Document(f"{len(chapters)} results", tuple(chapters), table, made, (notes,))


def _overview(found: AnyReported, chapter: Chapter) -> tuple[Cell, ...]:
    """The row of a chapter in the table at the top."""
    from rnnclf.report.document import Cell

    candidate, r = _candidate(found), _results(found)
    if candidate is None:
        share, bounds = r["test"]["accuracy"], r["test"]["interval95"]
        parameters, seconds = r["parameters"], r["total_seconds"]
    else:
        share, bounds = candidate.accuracy, candidate.interval95
        parameters, seconds = candidate.mean_of("parameters"), candidate.mean_of("total_seconds")
    return (
        Cell(f"{chapter.title} ({found.typed})"),
        Cell(percent(share), share),
        Cell(interval(bounds) if bounds else "too few runs"),
        Cell(str(r.get("data", r["dataset"]))),
        Cell("" if parameters is None else f"{parameters:,.0f}", parameters),
        Cell("" if seconds is None else seconds_in_words(seconds), seconds),
    )


def _candidate(found: AnyReported) -> Candidate | None:
    """The configuration that stands for a sweep, or for a search whose best point has other seeds."""
    from rnnclf.workflows.report_search import SearchReported
    from rnnclf.workflows.report_sweep import SweepReported

    if isinstance(found, SweepReported):
        return found.ranking.sections[0].candidates[0]
    return found.outcome.repeated if isinstance(found, SearchReported) else None


def _results(found: AnyReported) -> dict[str, Any]:
    """The results of the run that is shown in detail."""
    from rnnclf.workflows.report_run import Reported
    from rnnclf.workflows.report_sweep import SweepReported

    if isinstance(found, Reported):
        return found.results
    if isinstance(found, SweepReported):
        return found.first_run(found.ranking.sections[0].candidates[0]).results
    return found.one.results
