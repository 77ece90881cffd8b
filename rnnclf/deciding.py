"""The commands that list runs and say which of several is better. Heavy modules are imported only by the
commands that need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.files import is_path, write_atomically
from rnnclf.groups import AsJson, output_option, run_argument, run_at, runs_at
from rnnclf.shell import complete_compare, complete_ensemble

if TYPE_CHECKING:
    from rnnclf.console.sheets import Sheet

AsMarkdown = Annotated[bool, typer.Option("--md", help="Print Markdown on stdout.")]
AsLatex = Annotated[bool, typer.Option("--tex", help="Print LaTeX on stdout, a tabular for each table.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")]


def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_compare,
            metavar="PATH... [equal=POINTS]",
            help="Run folders, checkpoints in them, or sweep folders; then what counts as equal, equal=0.5"
            " (percentage points of accuracy).",
            show_default=False,
        ),
    ],
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg",
            help="Write the critical-difference diagram of several data sets to this file.",
            show_default=False,
        ),
    ] = None,
    md: AsMarkdown = False,
    tex: AsLatex = False,
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """Say which of several runs is better, and how sure that is. [cyan]rnnclf compare RUN1 RUN2[/]"""
    from rnnclf.console import compare as console
    from rnnclf.console.screen import print_note
    from rnnclf.workflows.compare import compare as workflow
    from rnnclf.workflows.compare import equal_of

    _refuse_several(md=md, tex=tex, csv=csv, json=json)
    paths = runs_at(word for word in words if is_path(word))
    if not paths:
        raise RnnclfError("Give the folders of runs or sweeps to compare.")
    found = workflow(list(dict.fromkeys(paths)), equal_of([word for word in words if not is_path(word)]))
    if svg is not None:
        if found.across is None or len(found.across.methods) < 3:
            raise ConfigError(
                "A critical-difference diagram takes at least three configurations that were trained on each"
                " of several data sets."
            )
        from rnnclf.console.critical_difference import critical_difference

        write_atomically(svg, critical_difference(found.across).encode())
    if md or tex or csv:
        for note in found.notes:
            print_note(note)
    if json:
        _print_json(found.to_dict())
    elif csv:
        _print_csv(console.lines_of(found))
    elif md or tex:
        _print_sheets(console.sheets_of(found), tex)
    else:
        console.show_comparison(found)


def ensemble(
    words: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_ensemble,
            metavar="PATH... [most=10]",
            help="Run folders, checkpoints in them, or sweep folders; then the most members that the ensemble"
            " may have.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        output_option("The file to write, in a folder above the runs; ensemble.json there if left out."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Average the best of several runs, as one model. [cyan]rnnclf ensemble outputs/SWEEP[/]"""
    from rnnclf.console.ensemble import show_ensemble
    from rnnclf.workflows.ensemble import choose, most_of
    from rnnclf.workflows.ensemble_file import save, to_plain

    paths = runs_at(word for word in words if is_path(word))
    if not paths:
        raise RnnclfError("Give the folder of a sweep, or those of the runs to average.")
    found = choose(list(dict.fromkeys(paths)), most_of([word for word in words if not is_path(word)]))
    file = save(found, output)
    if json:
        _print_json({"file": str(file), **to_plain(found, file.parent)})
    else:
        show_ensemble(found, file)


def board(
    folder: Annotated[
        Path, run_argument("The folder below which the runs lie; outputs/ if left out.")
    ] = Path("outputs"),
    md: AsMarkdown = False,
    tex: AsLatex = False,
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """Show the leaderboard of all runs, a table for each data set. [cyan]rnnclf board[/]"""
    from rnnclf.console import board as console
    from rnnclf.workflows.board import leaderboard

    _refuse_several(md=md, tex=tex, csv=csv, json=json)
    found = leaderboard(run_at(folder))
    if json:
        _print_json(found.to_dict())
    elif csv:
        _print_csv(console.lines_of(found))
    elif (md or tex) and found.sections:
        _print_sheets(console.sheets_of(found), tex)
    else:
        console.show_board(found)


def runs(
    folder: Annotated[
        Path, run_argument("The folder below which the runs lie; outputs/ if left out.")
    ] = Path("outputs"),
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """List runs, sweeps and evaluations, the newest last. [cyan]rnnclf runs[/]"""
    from rnnclf.console import runs as console
    from rnnclf.console.screen import print_json
    from rnnclf.workflows.listing import list_runs

    _refuse_several(csv=csv, json=json)
    folder = run_at(folder)
    found = list_runs(folder)
    if json:
        print_json([listed.to_dict() for listed in found])
    elif csv:
        _print_csv(console.lines_of(found))
    else:
        console.show_runs(found, folder)


def _refuse_several(**forms: bool) -> None:
    """Raises ConfigError if more than one form of output is asked for."""
    if sum(forms.values()) > 1:
        *others, last = [f"--{form}" for form in forms]
        raise ConfigError(f"Give one of {', '.join(others)} and {last}.")


def _print_json(value: dict[str, Any]) -> None:
    from rnnclf.console.screen import print_json

    print_json(value)


def _print_csv(lines: list[dict[str, Any]]) -> None:
    from rnnclf.workflows.runs import csv_text

    typer.echo(csv_text(lines), nl=False)


def _print_sheets(sheets: Sequence[Sheet], tex: bool) -> None:
    from rnnclf.console.sheets import latex, markdown

    typer.echo(latex(sheets) if tex else markdown(sheets), nl=False)
