"""The commands for many jobs. Heavy modules are imported only by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.groups import AsJson, finish, run_argument, run_at


def work(
    sweep: Annotated[Path, run_argument("A sweep folder, as train -m hydra/launcher=later writes it.")],
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Jobs that run at once.")] = 1,
    json: AsJson = False,
) -> None:
    """Run jobs of a sweep until none is left, beside any other workers. [cyan]rnnclf work SWEEP[/]"""
    from rnnclf.console.jobs import JobsDisplay
    from rnnclf.console.screen import use_stderr
    from rnnclf.workflows.work import work as workflow

    use_stderr(json)
    finish(workflow(run_at(sweep), JobsDisplay(json), jobs), json)
