"""The commands for a trained model beside eval. Heavy modules are imported only by the commands that need
them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnclf.files import paths_starting
from rnnclf.groups import AsJson, path_argument
from rnnclf.shell import complete_export
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
