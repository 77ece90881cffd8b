"""The commands for a trained model beside eval. Heavy modules are imported only by the commands that need
them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.errors import RnnclfError
from rnnclf.files import is_path, paths_starting
from rnnclf.groups import AsJson, path_argument
from rnnclf.shell import complete_export, complete_stream
from rnnclf.system.startup import import_torch


def export(
    run: Annotated[Path, path_argument("A run folder or a checkpoint file.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=complete_export,
            metavar="[WORDS]",
            help="step=true: one step with its state. int8=true: weights of 8 bits. operators=own: ONNX's own"
            " lstm or gru. labels=true: also names of classes. Also words for dataset, threads and plugins.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            autocompletion=paths_starting,
            help="The file to write; if left out, model.onnx or step.onnx in the run folder.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a trained model as one ONNX file, checked. [cyan]rnnclf export outputs/RUN[/]"""
    import_torch()
    from rnnclf.console.export import show_exported
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.export import export as workflow

    use_stderr(json)
    exported = workflow(run, words or [], output)
    show_exported(exported)
    if json:
        print_json(exported.to_dict())


def stream(
    run: Annotated[Path, path_argument("A run folder or a checkpoint file.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=complete_stream,
            metavar="[FILE] [WORDS]",
            help="A file of CSV or JSON lines, with a time step in each line; - or nothing for stdin. Then"
            " words for dataset, threads and plugins.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Answer after every so many steps of a sequence.")] = 1,
    last: Annotated[bool, typer.Option("--last", help="Answer once for each sequence, at its end.")] = False,
    when: Annotated[
        float | None,
        typer.Option(
            help="Answer once for each sequence, as soon as a class has this probability, such as 0.99,"
            " otherwise at its end. First: rnnclf eval RUN early=true.",
            show_default=False,
        ),
    ] = None,
    sequences: Annotated[
        int, typer.Option(min=1, help="How many sequences are kept apart by their ids.")
    ] = 10_000,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out lines that cannot be read, and count them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each answer as a JSON object.")] = False,
) -> None:
    """Classify sequences while they arrive, a step a line. [cyan]sensor | rnnclf stream outputs/RUN[/]"""
    import_torch()
    from rnnclf.console.screen import print_note
    from rnnclf.console.stream import source, write_answers
    from rnnclf.data.step_lines import lines_of
    from rnnclf.workflows.stream import Choice, Stream

    files = [word for word in words or [] if word == "-" or is_path(word)]
    if len(files) > 1:
        raise RnnclfError(f"Give one file, not {len(files)}: {', '.join(files)}.")
    overrides = [word for word in words or [] if word not in files]
    model = Stream(run, overrides, Choice(every, last, when, sequences, skip_bad), print_note)
    with source(files[0] if files else "-") as (file, name):
        write_answers(model.answers(lines_of(file, name), name), model.classes, json)
