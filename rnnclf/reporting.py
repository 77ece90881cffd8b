"""The command that writes a report. Heavy modules are imported only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.errors import RnnclfError
from rnnclf.files import is_path
from rnnclf.groups import AsJson, output_option, runs_at
from rnnclf.shell import complete_report


def report(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_report,
            metavar="PATH... [WORDS]",
            help="Run folders or sweep folders; then words for dataset and plugins, if the data are elsewhere"
            " by now.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        output_option("The file to write; report.html in the run or the sweep if left out."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write one HTML page that explains results to others. [cyan]rnnclf report outputs/RUN[/]"""
    from rnnclf.console.report import show_written
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.report import report as workflow

    use_stderr(json)
    paths = runs_at(word for word in words if is_path(word))
    if not paths:
        raise RnnclfError("Give a run folder or a sweep folder to report on.")
    written = workflow(paths, [word for word in words if not is_path(word)], output)
    show_written(written)
    if json:
        print_json(written.to_dict())
