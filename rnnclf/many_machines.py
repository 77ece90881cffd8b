"""The commands for many jobs. Heavy modules are imported only by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.console.starting import show_starting
from rnnclf.groups import AsJson, finish, run_argument, run_at
from rnnclf.shell import complete_train

Jobs = Annotated[int, typer.Option(min=1, max=1024, help="Jobs that run at once.")]


def work(
    sweep: Annotated[Path, run_argument("A sweep folder, as train -m hydra/launcher=later writes it.")],
    jobs: Jobs = 1,
    json: AsJson = False,
) -> None:
    """Run jobs of a sweep until none is left, beside any other workers. [cyan]rnnclf work SWEEP[/]"""
    show_starting()
    from rnnclf.console.jobs import JobsDisplay
    from rnnclf.console.screen import use_stderr
    from rnnclf.workflows.search.command import resume_search
    from rnnclf.workflows.sweep_folder import is_search
    from rnnclf.workflows.work import work as workflow

    use_stderr(json)
    folder, watch = run_at(sweep), JobsDisplay(json)
    end = resume_search(folder, [], watch, jobs) if is_search(folder) else workflow(folder, watch, jobs)
    finish(end, json)


def tune(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_train,
            metavar="WORDS",
            help="Words as for train, some with several values: hidden=32,64, 'hidden=range(16,129,16)',"
            " 'optimizer.lr=tag(log,interval(1e-4,1e-1))'; without any, a space that suits the cell. Then"
            " budget=10m (training time of all trials), trials=50, sampler=tpe, gp or random, prune=halving,"
            " median or none, and seeds=5, which train the best point again.",
            show_default=False,
        ),
    ],
    jobs: Jobs = 1,
    json: AsJson = False,
) -> None:
    """Search for the settings that train best. [cyan]rnnclf tune my.csv budget=10m[/]"""
    show_starting()
    from rnnclf.console.jobs import JobsDisplay
    from rnnclf.console.screen import use_stderr
    from rnnclf.workflows.search.command import tune as workflow

    use_stderr(json)
    finish(workflow(words, JobsDisplay(json), jobs), json)
