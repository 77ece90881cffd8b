"""The commands of `rnnclf data`. Heavy modules are imported only by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.errors import RnnclfError
from rnnclf.groups import AsJson, Group, path_argument
from rnnclf.shell import complete_data

data = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode="rich")


@data.command("check")
def check_data(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_data,
            metavar="PATH | WORDS",
            help="A file or folder of your own, or the words with which train would read the data:"
            " dataset=NAME dataset.KEY=VALUE.",
            show_default=False,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Describe a data set, its problems, and how to train on it. [cyan]rnnclf data check my.csv[/]"""
    from rnnclf.console.data import show_checked
    from rnnclf.console.progress import reading_display
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.data import check

    use_stderr(json)
    with reading_display() as progress:
        found = check(words, progress)
    show_checked(found)
    if json:
        print_json(found.to_dict())
    if found.obstacle is not None:
        raise RnnclfError(found.obstacle)


@data.command("make")
def make_data(
    path: Annotated[
        Path, path_argument("my.csv, .tsv, .parquet, .npz, or a name without a suffix for a folder.")
    ],
    sequences: Annotated[int, typer.Option(help="Number of sequences.")] = 300,
    channels: Annotated[int, typer.Option(help="Channels of each sequence.")] = 3,
    length: Annotated[
        int, typer.Option(help="Mean number of steps; lengths range from 0.5 to 1.5 times it.")
    ] = 60,
    missing: Annotated[float, typer.Option(help="Share of missing values.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    hours: Annotated[
        float | None, typer.Option(help="Instead of sequences: recordings of so many hours, a label per row.")
    ] = None,
    recordings: Annotated[int, typer.Option(help="With --hours: number of recordings.")] = 1,
    rate: Annotated[float, typer.Option(help="With --hours: steps per second.")] = 100,
    json: AsJson = False,
) -> None:
    """Write small made-up sequences to try things on: ragged, with gaps. [cyan]rnnclf data make my.csv[/]"""
    from rnnclf.console.data import show_made
    from rnnclf.console.progress import reading_display
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.data.synthetic import LongWaves, Waves, make

    use_stderr(json)
    if hours is None:
        waves: Waves | LongWaves = Waves(sequences, channels, length, missing, seed)
    else:
        waves = LongWaves(hours, recordings, rate, channels, missing, seed)
    with reading_display() as progress:
        make(path, waves, progress)
    show_made(path, windows=hours is not None, blocks=hours is not None and recordings < 10)
    if json:
        print_json({"path": str(path), **vars(waves)})
