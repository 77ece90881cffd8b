"""Runs hydra.main with the arguments of `rnnclf train`, and returns the outcome."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import Config
from rnnclf.config_reading import causes
from rnnclf.errors import ConfigError, JobFailed, OutputError, RnnclfError
from rnnclf.files import claim_folder, in_the_way, not_created
from rnnclf.hydra_app.checks import Refusal, Start, starting
from rnnclf.hydra_app.compose import explained, plugins_in
from rnnclf.hydra_app.grammar import is_about_hydra, quoted
from rnnclf.hydra_app.job import Body, Isolate, Job, as_task, with_config
from rnnclf.hydra_app.plugins import checked_once
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.hydra_app.repeats import expanded, ranges
from rnnclf.hydra_app.setup import conf_dir, folders_unclaimed, register
from rnnclf.hydra_app.words import prepared, unknown_flag

__all__ = ["Job", "Outcome", "run_hydra"]

# Hydra's flags; VALUE_FLAGS take a value.
VALUE_FLAGS = (
    "--cfg -c --package -p --config-path -cp --config-name -cn --config-dir -cd --experimental-rerun"
)
PLAIN_FLAGS = "--help -h --hydra-help --version --resolve --run -r --multirun -m --shell-completion -sc"
INFO_FLAGS = ("--info", "-i")
TOO_MANY = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # processes, open files
SHOWING_FLAGS = {"--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--shell-completion", "-sc"}
INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run or a sweep."""

    sweep_folder: Path | None
    """None after a single run."""
    error: Exception | None
    """The error of a job, or of a launcher that stopped before its jobs were done."""

    @property
    def broke(self) -> bool:
        return self.error is not None and not isinstance(self.error, RnnclfError | JobFailed)

    @property
    def unconnected(self) -> bool:
        """Whether the launcher ended because it could not reach what runs its jobs."""
        return isinstance(self.error, OSError) and self.error.errno not in TOO_MANY


def run_hydra(
    body: Callable[[Config, Job], float | None],
    words: list[str],
    prog: str,
    isolate: Isolate = lambda job, work: work(),
    start: Start | None = None,
) -> Outcome:
    """Runs `body` under hydra.main with command-line arguments `words`.

    Args:
        isolate: runs one job of a sweep, for instance in a subprocess.
        start: callbacks before a run or a sweep starts.

    Raises RnnclfError for errors that the user can fix before any job starts. In a sweep, a failing job does
    not stop the others.
    """
    flags, overrides = flags_and_overrides(words)
    start = start or Start()
    register(plugins_in(overrides))
    if not {"--help", "-h", "--hydra-help", "--version"} & {*flags}:
        if SHOWING_FLAGS & {flag.split("=")[0] for flag in flags}:
            overrides = ranges(overrides, first=True)
        flags, overrides, note = expanded(flags, overrides)
        if note is not None:
            start.note(note)
        overrides, notes = prepared(overrides, sweep=bool({"-m", "--multirun"} & {*flags}))
        overrides = with_recipe(overrides)
        for sentence in notes:
            start.note(sentence)
    return _run_main(with_config(body), [prog, *flags, *overrides], isolate, start)


def run_again(
    body: Callable[[Job], float | None],
    folder: Path,
    jobs: Mapping[int, Path],
    words: list[str],
    isolate: Isolate,
) -> Outcome:
    """Runs `body` for jobs of the sweep in `folder`, given by number and folder, with the launcher selected
    by `words`.

    For Hydra this is a sweep over the numbers, recorded in a new folder inside `folder`, so nothing there is
    overwritten. Hydra composes no configuration for the jobs: `body` has to know what to run.

    Raises RnnclfError for words that Hydra does not understand.
    """
    if unrelated := [word for word in words if not is_about_hydra(word)]:
        raise ConfigError(
            f"'{unrelated[0]}' cannot be changed on resume: only options of the launcher, hydra.…, can."
        )
    record = claim_folder(folder / ".resumed")
    places = {number: os.path.relpath(path, record) for number, path in jobs.items()}
    folders = ",".join(f"job{number}:{quoted(place)}" for number, place in places.items())
    own = [
        *(f"hydra.sweep.dir={quoted(str(record))}", "hydra.sweep.subdir='${folders.${job}}'"),
        *(f"+folders={{{folders}}}", f"+job={','.join(f'job{number}' for number in jobs)}"),
        *("hydra.output_subdir=null", "~hydra.callbacks.checks"),
        "hydra/hydra_logging=disabled",  # which would number the jobs from 0
    ]
    register([])
    start, argv = Start(sweep_folder=folder), ["rnnclf resume", "-m", *words, *own]
    return _run_main(lambda composed, job: body(job), argv, isolate, start)


def _run_main(body: Body, argv: list[str], isolate: Isolate, start: Start) -> Outcome:
    GlobalHydra.instance().clear()  # left over from initialize() in a notebook or a test
    failures: list[Exception] = []
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    showing = SHOWING_FLAGS & {word.split("=")[0] for word in argv}
    with (
        _as_process(argv),
        starting(start),
        checked_once(),
        folders_unclaimed() if showing else nullcontext(),
    ):
        try:
            with _help_that_works() if {"--help", "-h", "--hydra-help"} & {*argv} else nullcontext():
                main(as_task(body, failures, isolate))()
        except Refusal as refusal:
            raise refusal.error from None
        except (JobFailed, RnnclfError) as error:
            return Outcome(start.sweep_folder, error)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error) from error
        except OSError as error:
            if start.sweep_folder is not None and _is_from_launcher(error):
                return Outcome(start.sweep_folder, error)
            raise _unwritable(error) from error
        except Exception as error:
            if "Unable to configure" in str(error):  # from the standard library's logging
                raise _no_logging(error) from error
            if start.sweep_folder is not None:  # from a launcher: jobs raise only the above
                return Outcome(start.sweep_folder, error)
            if isinstance(error, ValueError | TypeError | AssertionError):
                raise explained(error) from error  # from malformed words that Hydra does not handle
            raise
    if failures:
        raise failures[0]
    return Outcome(start.sweep_folder, None)


def _is_from_launcher(error: OSError) -> bool:
    """Whether an error in a sweep is about processes or a connection. Those about files have a number, but
    not always a name: a full disk has none."""
    return isinstance(error, ConnectionError | TimeoutError) or error.errno is None or error.errno in TOO_MANY


def _unwritable(error: OSError) -> OutputError:
    if not error.filename:
        return OutputError(f"Cannot write the files of this run: {error.strerror or error}.")
    path = Path(os.fsdecode(error.filename))
    if error.errno == errno.EEXIST:  # only a mkdir ends so
        return not_created(path, error)
    return OutputError(f"Cannot write {path}: {in_the_way(path.parent) or error.strerror}.")


def _no_logging(error: Exception) -> RnnclfError:
    """The reason why a log cannot be kept: its file cannot be written, or its configuration is wrong."""
    *_, cause = causes(error)
    if isinstance(cause, OSError):
        return _unwritable(cause)
    return ConfigError(f"The log cannot be configured as hydra/job_logging says: {cause}.")


def flags_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Separates flags from overrides: Hydra 1.3 rejects `a=1 -m b=2` and `--info a=1`.

    Raises ConfigError for an unknown flag.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
        elif word == "--plugins":  # spelled as for the other commands
            overrides.append(f"plugins={rest.pop(0) if rest else ''}")
        elif word in INFO_FLAGS:
            topic = rest.pop(0) if rest and rest[0] in INFO_TOPICS else "all"
            flags.append(f"--info={topic}")
        elif word in VALUE_FLAGS.split():
            flags += [word, *rest[:1]]
            del rest[:1]
        elif word.split("=")[0] in [*VALUE_FLAGS.split(), *PLAIN_FLAGS.split(), *INFO_FLAGS]:
            flags.append(word)
        else:
            known = f"{VALUE_FLAGS} {PLAIN_FLAGS} --info --json".split()
            raise unknown_flag(word, rest, known)
    return flags, overrides


@contextmanager
def _help_that_works() -> Iterator[None]:
    """Removes from Hydra's help what is of no use here.

    That is our schema groups, which users cannot choose from, and a completion that knows no sub-commands.
    """
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:  # Hydra may call sys.exit
        useful = re.sub(r"--shell-completion,.*?\n\n(?=--)", "", text.getvalue(), flags=re.DOTALL)
        lines = useful.splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith("schema"))


@contextmanager
def _as_process(argv: list[str]) -> Iterator[None]:
    """Sets sys.argv for Hydra's parser, and makes Hydra raise errors instead of printing them and exiting.

    Also turns off the tracebacks that logging prints when the log cannot be written, as on a full disk.
    """
    variable = "HYDRA_FULL_ERROR"
    old_argv, old_setting, old_raise = sys.argv, os.environ.get(variable), logging.raiseExceptions
    sys.argv, os.environ[variable], logging.raiseExceptions = argv, "1", False
    try:
        yield
    finally:
        sys.argv, logging.raiseExceptions = old_argv, old_raise
        del os.environ[variable]
        if old_setting is not None:
            os.environ[variable] = old_setting
