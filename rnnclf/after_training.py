"""The commands for a trained model beside eval. Heavy modules are imported only by the commands that need
them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnclf.errors import RnnclfError
from rnnclf.files import is_path, paths_starting
from rnnclf.groups import AsJson, output_option, run_argument, run_at, runs_at
from rnnclf.shell import complete_export, complete_predict, complete_stream, complete_track
from rnnclf.system.startup import import_torch

if TYPE_CHECKING:
    from rnnclf.workflows.demo import Page
    from rnnclf.workflows.export import Exported


def export(
    run: Annotated[Path, run_argument("A run folder or a checkpoint file.")],
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
        output_option("The file to write; if left out, model.onnx or step.onnx in the run folder."),
    ] = None,
    demo: Annotated[
        Path | None,
        typer.Option(
            autocompletion=paths_starting,
            metavar="DIR",
            help="Write a folder with the model and a web page that runs it: draw a digit, drop a table.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a trained model as one ONNX file, checked. [cyan]rnnclf export outputs/RUN[/]"""
    import_torch()
    from rnnclf.console.export import show_exported, show_page
    from rnnclf.console.screen import print_json, print_note, use_stderr

    use_stderr(json)
    if misplaced := next((word for word in words or [] if "=" not in word and word.endswith(".onnx")), None):
        raise RnnclfError(f"Give the file to write with -o: rnnclf export {run} -o {misplaced}")
    run = run_at(run)
    if demo is None:
        from rnnclf.workflows.export import export as workflow

        exported = workflow(run, words or [], output)
        show_exported(exported)
        found: Exported | Page = exported
    else:
        from rnnclf.workflows.demo import export_demo

        if output is not None:
            raise RnnclfError("--demo writes the model into its folder: leave out --output.")
        found = page = export_demo(run, words or [], demo, print_note)
        show_page(page)
    if json:
        print_json(found.to_dict())


def stream(
    run: Annotated[Path, run_argument("A run folder or a checkpoint file.")],
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
    from rnnclf.data.step_lines import arrivals
    from rnnclf.workflows.stream import Choice, Stream

    files = [word for word in words or [] if word == "-" or is_path(word)]
    if len(files) > 1:
        raise RnnclfError(f"Give one file, not {len(files)}: {', '.join(files)}.")
    overrides = [word for word in words or [] if word not in files]
    model = Stream(run_at(run), overrides, Choice(every, last, when, sequences, skip_bad), print_note)
    with source(files[0] if files else "-") as (file, name):
        write_answers(model.answers(arrivals(file, name), name), model.classes, json)


def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_predict,
            metavar="RUN... DATA [WORDS]",
            help="A run folder, a checkpoint, an exported file or the file of an ensemble, then the file or"
            " folder to classify, - for stdin; then words for dataset, device, threads, engine, precision and"
            " plugins.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        output_option("A .csv, .tsv, .jsonl or .parquet file for the answers; stdout, as CSV, if left out."),
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, help="So many of the most probable classes, instead of all probabilities.")
    ] = 0,
    logits: Annotated[
        bool, typer.Option("--logits", help="The outputs of the model instead of all probabilities.")
    ] = False,
    columns: Annotated[
        str, typer.Option(help="These columns alone, separated by commas: id,class.", show_default=False)
    ] = "",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave sequences that cannot be read without a class.")
    ] = False,
    recordings: Annotated[
        bool, typer.Option("--recordings", help="A row for each recording, not for each of its windows.")
    ] = False,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Average the probabilities of several runs, or of a sweep.")
    ] = False,
    sets: Annotated[
        float | None,
        typer.Option(
            help="Also name all classes that are likely, so that such a share of the sets contains the true"
            " one: 0.95.",
            show_default=False,
        ),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Name a class only where the set of this share has exactly one: 0.95.", show_default=False
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(help="Mark answers whose class is less probable: 0.9.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout instead of CSV.")] = False,
) -> None:
    """Classify new data, which need no labels. [cyan]rnnclf predict outputs/RUN new.csv[/]"""
    import_torch()
    from rnnclf.console.prediction import answers_to, write_answers
    from rnnclf.console.progress import reading_display
    from rnnclf.console.screen import print_note
    from rnnclf.workflows.answers import Layout, is_text
    from rnnclf.workflows.predict import prediction
    from rnnclf.workflows.sureness import SureWords

    *runs, data = ["", *(word for word in words if is_path(word))]
    if len(runs) < 2:
        raise RnnclfError("Give the folder of a run, and after it the data to classify.")
    kept = {"ensemble": ensemble, "whole_recordings": recordings, "skip_bad": skip_bad}
    overrides = [word for word in words if not is_path(word)]
    with (
        answers_to(output, json) as write,
        reading_display() as progress,
        prediction(
            runs_at(runs[1:]),
            data,
            overrides,
            **kept,
            sure=SureWords(sets, abstain, min_probability),
            stdin=sys.stdin.buffer,
            progress=progress,
        ) as found,
    ):
        if logits:
            found.refuse_no_logits()
        chosen = tuple(filter(None, columns.split(",")))
        layout = Layout(found.classes, top, logits, chosen, found.sure, is_text(output, json))
        rows = write_answers(found, layout, write, progress)
    if output is not None:
        print_note(f"{rows:,} answers are in {output}")


def track(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_track,
            metavar="PATH... tracker=NAME",
            help="Run folders and sweep folders, and the tracker: tensorboard, mlflow, wandb or trackio.",
            show_default=False,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Send runs to an experiment tracker. [cyan]rnnclf track outputs/RUN tracker=mlflow[/]"""
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.console.tracking import show_tracked
    from rnnclf.workflows.tracking import track as workflow

    use_stderr(json)
    paths = runs_at(word for word in words if is_path(word))
    if not paths:
        raise RnnclfError("Give the folder of a run or a sweep to send.")
    tracked = workflow(paths, [word for word in words if not is_path(word)])
    show_tracked(tracked)
    if json:
        print_json(tracked.to_dict())
