"""The commands. Heavy modules are imported only by the commands that need them: --help and TAB stay fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rnnclf.after_training import export, predict, stream, track
from rnnclf.console.starting import clear_starting, show_starting
from rnnclf.data_commands import data
from rnnclf.deciding import board, compare, ensemble, runs
from rnnclf.errors import RnnclfError
from rnnclf.files import is_path
from rnnclf.groups import (
    AsJson,
    Commands,
    Evaluate,
    Plugins,
    Train,
    finish,
    output_option,
    run_argument,
    run_at,
    runs_at,
)
from rnnclf.many_machines import tune, work
from rnnclf.reporting import report
from rnnclf.shell import (
    complete_baseline,
    complete_cell,
    complete_eval,
    complete_group,
    complete_name,
    complete_shown,
    complete_train,
    use_our_scripts,
)
from rnnclf.system import startup, streams
from rnnclf.system.startup import gc_disabled, import_torch

use_our_scripts()
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the command `rnnclf`."""
    streams.protect()
    startup.repair_environment()
    try:
        app(prog_name="rnnclf")
    except SystemExit as end:
        clear_starting()
        if not isinstance(end.code, int):
            raise
        code = end.code
        if problem := streams.unwritten():
            from rnnclf.console.screen import print_error

            print_error(problem)
            code = code or 2
        startup.end_with(code)
        raise SystemExit(code) from None


def _show_version(yes: bool) -> None:
    if yes:
        from rnnclf import __version__

        typer.echo(f"rnnclf {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train, compare and trust recurrent sequence classifiers."""


# All arguments of `train`, including --help, go to Hydra, so Typer must leave unknown flags in place.
@app.command(
    cls=Train,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@gc_disabled()  # until torch is imported
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(autocompletion=complete_train, metavar="[OVERRIDES AND FLAGS]", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Train a classifier, or with -m several. [cyan]rnnclf train cell=lstm hidden=100[/]"""
    words = words or []
    if {"--help", "-h"} & {*words}:
        from rnnclf.console.help import explain_train

        return explain_train([word for word in words if word not in ("--help", "-h")], json)
    show_starting()
    from rnnclf.console.jobs import JobsDisplay
    from rnnclf.console.screen import use_stderr
    from rnnclf.workflows import jobs

    use_stderr(json)
    finish(jobs.train(words, JobsDisplay(json)), json)
    return None


@app.command()
def resume(
    path: Annotated[Path, run_argument("The folder of a run, a sweep or a search.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=complete_train,
            metavar="[OVERRIDES]",
            help="For a run: epochs=N, to train longer. For a sweep: points to add, seed=3,4 or seeds=5, and"
            " a launcher, hydra/launcher=joblib. For a search: trials=, budget= or seeds=.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Resume a run or a sweep, as if it had not been interrupted. [cyan]rnnclf resume outputs/RUN[/]"""
    show_starting()
    from rnnclf.console.jobs import JobsDisplay
    from rnnclf.console.screen import use_stderr
    from rnnclf.workflows import jobs
    from rnnclf.workflows.search.command import resume_search
    from rnnclf.workflows.sweep_folder import is_search

    use_stderr(json)
    path = run_at(path)
    workflow = resume_search if is_search(path) else jobs.resume
    finish(workflow(path, words or [], JobsDisplay(json)), json)


@app.command("eval", cls=Evaluate)
def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_eval,
            metavar="PATH... [DATA] [WORDS]",
            help="Checkpoint files, exported files, files of ensembles, run folders or sweep folders; then"
            " other data; then split= and train, validation, test or all, sets=0.95, early=true (accuracy by"
            " step), and words for dataset, device, threads, engine, precision and plugins.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        output_option(
            "Where the timestamped folder of tables is created; if left out, eval/ inside the run or the"
            " sweep, or outputs/ for several."
        ),
    ] = None,
    errors: Annotated[
        int, typer.Option(min=0, help="Draw so many of the most confident mistakes, and save errors.csv.")
    ] = 0,
    runs: Annotated[
        bool, typer.Option("--runs", help="Of a sweep over seeds or folds, show each run as well.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Score saved checkpoints: accuracy, classes, confusions. [cyan]rnnclf eval outputs/RUN[/]"""
    show_starting()
    import_torch()
    from rnnclf.console.evaluation import save_evaluation, show_evaluation
    from rnnclf.console.mistakes import show_mistakes
    from rnnclf.console.screen import print_error, print_json, print_note, use_stderr
    from rnnclf.workflows import evaluate as workflow
    from rnnclf.workflows.search.standing import what_stands

    use_stderr(json)
    paths = runs_at(word for word in words if is_path(word))
    if not paths:
        raise RnnclfError("Give a checkpoint file, a run folder or a sweep folder to evaluate.")
    for sentence in what_stands(paths):
        print_note(sentence)
    results, failures = workflow.evaluate_all(paths, [word for word in words if not is_path(word)])
    folder, note = workflow.claim_evaluation(workflow.with_data(paths)[0], output)
    workflow.save(results, folder, mistakes=errors > 0)
    save_evaluation(results, folder)
    show_evaluation(results, folder, runs)
    if errors:
        show_mistakes(results, errors)
    if note:
        print_note(note)
    if json:
        print_json([result.to_dict(errors) for result in results])
    for failure in failures:
        print_error(failure.message)
    if failures:
        raise typer.Exit(1)


app.command()(tune)
app.command()(work)
app.command()(predict)
app.command()(export)
app.command()(stream)
app.command()(track)
app.command()(compare)
app.command()(ensemble)
app.command()(board)
app.command()(report)
app.command()(runs)


@app.command("inspect")
def inspect_(
    path: Annotated[
        Path,
        run_argument("A checkpoint or exported file, or the folder of a run, a sweep or an evaluation."),
    ],
    json: AsJson = False,
) -> None:
    """Describe a file or folder, and check whether it is intact. [cyan]rnnclf inspect outputs/RUN[/]"""
    from rnnclf.console.inspect import show_inspection
    from rnnclf.console.screen import print_error, print_json, use_stderr
    from rnnclf.workflows.inspect import SweepFacts, inspect

    use_stderr(json)
    found = inspect(run_at(path))
    show_inspection(found)
    if json:
        print_json(found.to_dict())
    if isinstance(found, SweepFacts) and found.errors:
        for error in found.errors:
            print_error(error)
        raise typer.Exit(1)
    if found.error is not None:
        raise RnnclfError(found.error)


@app.command("list")
def list_(
    group: Annotated[
        str | None,
        typer.Argument(autocompletion=complete_group, help="cells, datasets, optimizers …; all if left out."),
    ] = None,
    plugins: Plugins = "",
    json: AsJson = False,
) -> None:
    """List what can be chosen: cells, datasets, optimizers … [cyan]rnnclf list cells[/]"""
    from rnnclf.console.catalog import show_choices
    from rnnclf.console.screen import print_json
    from rnnclf.workflows.catalog import list_choices

    choices = list_choices(group, _modules(plugins))
    if json:
        print_json([choice.to_dict() for choice in choices])
    else:
        show_choices(choices)


@app.command()
def show(
    word: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_shown,
            help="A choice such as lstm, a key such as epochs or optimizer.lr, or a group such as cell.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_name, help="After a group: which of its choices.", show_default=False
        ),
    ] = None,
    plugins: Plugins = "",
    json: AsJson = False,
) -> None:
    """Explain a choice or a key. [cyan]rnnclf show lstm[/], [cyan]rnnclf show epochs[/]"""
    from rnnclf.console.catalog import show_found
    from rnnclf.console.screen import print_json
    from rnnclf.workflows.catalog import find

    found = find(word, name, _modules(plugins))
    if json:
        print_json([choice.to_dict() for choice in found] if isinstance(found, list) else found.to_dict())
    else:
        show_found(found)


@app.command("test-cell")
def check_cell(
    cell: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_cell,
            metavar="MODULE:CLASS",
            help="A cell of your own, for instance my_cells:Leaky, or the name of one of ours.",
            show_default=False,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Test the claims that every cell must satisfy. [cyan]rnnclf test-cell lstm[/]"""
    from rnnclf.console.conformance import claims_display, show_verdicts
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.conformance import cell_named, check_claims

    use_stderr(json)
    kind = cell_named(cell)
    with claims_display() as watch:
        verdicts = check_claims(kind, watch)
    show_verdicts(kind.name, verdicts)
    if json:
        print_json([vars(verdict) for verdict in verdicts])
    if any(verdict.outcome == "broken" for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def bench(
    cells: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=complete_cell,
            metavar="CELL",
            help="Names of cells, or MODULE:CLASS; basic, lstm and gru if left out.",
            show_default=False,
        ),
    ] = None,
    hidden: Annotated[int, typer.Option(help="Units of each layer.")] = 150,
    batch: Annotated[int, typer.Option(help="Sequences of a training step.")] = 150,
    inference_batch: Annotated[int, typer.Option(help="Sequences classified at once.")] = 1000,
    length: Annotated[int, typer.Option(help="Steps of a sequence.")] = 28,
    inputs: Annotated[int, typer.Option(help="Features of a step.")] = 28,
    layers: Annotated[int, typer.Option(help="Layers on top of each other.")] = 1,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Annotated[str, typer.Option(help="Threads of the CPU, a number or auto.")] = "auto",
    json: AsJson = False,
) -> None:
    """Measure the speed of cells on this machine, engine by engine. [cyan]rnnclf bench lstm --hidden 64[/]"""
    from rnnclf.console.bench import bench_display, show_benchmark
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.bench import Bench
    from rnnclf.workflows.bench import bench as workflow

    use_stderr(json)
    settings = Bench(hidden, batch, inference_batch, length, inputs, layers, seconds, device, threads)
    with bench_display() as watch:
        result = workflow(cells or ["basic", "lstm", "gru"], settings, watch)
    show_benchmark(result)
    if json:
        print_json(result.to_dict())


@app.command()
def baseline(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_baseline,
            metavar="PATH | WORDS",
            help="The words with which train would read the data; then classifiers= and some of"
            " dtw, forest and minirocket; max_time=10m, the most that each may take; seed= and threads=.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        output_option("Where the run folders are created; outputs/ if left out."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Try well-known classifiers on the same splits as train. [cyan]rnnclf baseline my.csv[/]"""
    import_torch()
    from rnnclf.console.baseline import save_baseline, show_baselines
    from rnnclf.console.progress import reading_display
    from rnnclf.console.screen import print_json, use_stderr
    from rnnclf.workflows.baseline import compare_baselines

    use_stderr(json)
    with reading_display() as progress:
        found = compare_baselines(words, output, progress, save_baseline)
    show_baselines(found)
    if json:
        print_json([{"folder": str(run.folder.path), **run.results} for run in found.runs])


app.add_typer(data, name="data", help="Look at your own data before training; make some to try things on.")

if sys.flags.optimize >= 2:  # python -OO leaves the commands without their docstrings
    from rnnclf.docstrings import docstring_of

    for command in (*app.registered_commands, *data.registered_commands):
        command.help = docstring_of(command.callback)


def _modules(plugins: str) -> tuple[str, ...]:
    return tuple(filter(None, plugins.strip("[]").replace(" ", "").split(",")))
