"""What commands share: options, errors as messages and exit codes, the nearest command to a word."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.files import paths_starting
from rnnclf.registry import nearest
from rnnclf.shell import complete_run
from rnnclf.system import startup
from rnnclf.system.signals import INTERRUPTED, asked_to_end, exit_on_signals

if TYPE_CHECKING:
    from rnnclf.workflows.jobs import Finished

MEANT = {
    **dict.fromkeys(("fit", "run", "learn", "training"), "train"),
    **dict.fromkeys(("sweep", "multirun", "grid"), "train -m"),
    **dict.fromkeys(("evaluate", "test", "score", "validate"), "eval"),
    **dict.fromkeys(("classify", "infer", "inference", "label"), "predict"),
    **dict.fromkeys(("continue", "restart"), "resume"),
    **dict.fromkeys(("worker", "workers", "queue"), "work"),
    **dict.fromkeys(("search", "optimize", "optimise", "hpo", "optuna"), "tune"),
    **dict.fromkeys(("info", "describe", "status"), "inspect"),
    **dict.fromkeys(("onnx", "convert", "deploy", "save"), "export"),
    **dict.fromkeys(("online", "live", "steps", "pipe"), "stream"),
    **dict.fromkeys(("explain", "options"), "show"),
    **dict.fromkeys(("ls", "history", "outputs"), "runs"),
    **dict.fromkeys(("log", "upload", "sync", "tensorboard", "mlflow", "wandb", "trackio"), "track"),
    **dict.fromkeys(("leaderboard", "ranking", "best"), "board"),
    **dict.fromkeys(("diff", "versus", "vs"), "compare"),
    **dict.fromkeys(("average", "combine", "blend"), "ensemble"),
    **dict.fromkeys(("benchmark", "speed", "time"), "bench"),
    **{"check": "data check", "make": "data make", "help": "--help", "version": "--version"},
}
"""Words that people type for a command, and the command."""


AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Plugins = Annotated[str, typer.Option(help="Modules of your own, separated by commas.")]


def path_argument(help: str) -> Any:
    return typer.Argument(autocompletion=paths_starting, help=help, show_default=False)


def run_argument(help: str) -> Any:
    """A path, or what stands for that of a run: see `run_at`."""
    return typer.Argument(autocompletion=complete_run, help=help, show_default=False)


def run_at(path: Path) -> Path:
    """The path, or that of the run for which `latest` or a name stands, and a note on stderr which one that
    is."""
    from rnnclf.console.screen import print_note
    from rnnclf.workflows.places import run_named

    return run_named(path, print_note)


def runs_at(words: Iterable[str]) -> list[Path]:
    """The same for several."""
    return [run_at(Path(word)) for word in words]


def output_option(help: str) -> Any:
    return typer.Option("--output", "-o", autocompletion=paths_starting, help=help, show_default=False)


ERRORS = 10  # mistakes that --errors shows, if it has no number


def finish(end: Finished, json: bool) -> None:
    """Prints the results of a run as JSON, and turns a failed job into exit code 1."""
    if json and end.results is not None:
        from rnnclf.console.screen import print_json

        print_json(end.results)
    if end.failed:
        raise typer.Exit(1)


class Group(TyperGroup):
    """Commands of which the nearest is named if one does not exist."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if ctx.resilient_parsing or self.get_command(ctx, word) or word.startswith("-"):
            return super().resolve_command(ctx, args)
        known = {name: name for name in self.commands}
        if ctx.parent is None:
            known |= MEANT
        if "=" in word and ctx.parent is None:
            meant = f"train {' '.join(args)}"
        else:
            near = nearest(word, known)
            meant = known[near] if near else ""
        hint = f" Did you mean '{ctx.command_path} {meant}'?" if meant else ""
        raise RnnclfError(f"No command named '{word}'.{hint} All commands: {ctx.command_path} --help.")


class Commands(Group):
    """Turns the errors of all commands into messages and exit codes."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)
        except Exception as error:
            if _is_typers_own(error):
                raise
            raise typer.Exit(_report_error(error)) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            with exit_on_signals():
                return self._invoke(ctx)
        except KeyboardInterrupt:
            from rnnclf.console.screen import print_note

            print_note("stopped by Ctrl-C")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if _is_typers_own(error) or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            raise typer.Exit(_report_error(error)) from None

    def _invoke(self, ctx: Any) -> Any:
        """Re-raises the signal that is hidden in a SystemError."""
        startup.refuse_deleted_folder()
        try:
            return super().invoke(ctx)
        except SystemError as error:
            if end := asked_to_end(error):
                raise end from None
            raise


class Train(TyperCommand):
    """The command whose arguments all go to Hydra: TAB also offers Hydra's flags, not only Typer's."""

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        words = next(param for param in self.params if param.name == "words")
        return words.shell_complete(ctx, incomplete)


class Evaluate(TyperCommand):
    """The command whose --errors may stand without a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        pairs = zip(args, [*args[1:], ""], strict=False)  # none if there are no words
        return super().parse_args(
            ctx,
            [
                f"--errors={ERRORS}" if word == "--errors" and not after.isdecimal() else word
                for word, after in pairs
            ],
        )


def _is_typers_own(error: Exception) -> bool:
    """Whether Typer handles an exception, as it does an exit; errors of usage have a message to print."""
    has_message = hasattr(error, "format_message") and error.format_message()
    return type(error).__module__.split(".")[0] in ("typer", "click") and not has_message


def _report_error(error: Exception) -> int:
    """Prints an error to stderr and returns its exit code."""
    from rnnclf.console.screen import print_error

    if hasattr(error, "format_message"):  # Typer's of a missing argument or an unknown option
        context = getattr(error, "ctx", None)
        usage = f" {context.get_usage().strip()}; more: {context.command_path} -h" if context else ""
        error = RnnclfError(f"{error.format_message().rstrip('.')}.{usage}")
    if isinstance(error, OSError) and error.filename is not None:  # from a path given by the user
        error = RnnclfError(f"{error.filename}: {error.strerror}.")
    if not isinstance(error, RnnclfError | JobFailed):
        traceback.print_exception(error)
        return 1
    print_error(str(error))
    return 2 if isinstance(error, RnnclfError) else 1
