"""From the words after `rnnclf train` to the real hydra.main, and back with what came of it."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rnnclf.errors import ConfigError, JobFailed, OutputError, RnnclfError
from rnnclf.hydra_app.checks import Checks, Refusal
from rnnclf.hydra_app.compose import explained, plugins_in
from rnnclf.hydra_app.job import Body, Job, as_task
from rnnclf.hydra_app.setup import conf_dir, register
from rnnclf.registry import did_you_mean

__all__ = ["Job", "Outcome", "run_hydra"]

# Hydra's flags; those of the first line are followed by a value.
VALUE_FLAGS = (
    "--cfg -c --package -p --config-path -cp --config-name -cn --config-dir -cd --experimental-rerun"
)
PLAIN_FLAGS = "--help -h --hydra-help --version --resolve --run -r --multirun -m --shell-completion -sc"
INFO_FLAGS = ("--info", "-i")
INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the folder if it was a sweep, the error if a job failed."""

    sweep_folder: Path | None
    error: Exception | None


def run_hydra(body: Body, words: list[str], prog: str) -> Outcome:
    """Runs `body` under hydra.main with the words of a command line.

    What the user can put right raises RnnclfError before any job starts. In a sweep a failing job
    leaves the others running, and the first error comes back in the Outcome.
    """
    Checks.sweep_folder = None
    flags, overrides = flags_and_overrides(words)
    register(plugins_in(overrides))
    GlobalHydra.instance().clear()  # a leftover of initialize() in this process: a notebook, a test
    failures: list[Exception] = []
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    with _as_process([prog, *flags, *overrides]):
        try:
            with _help_without_schemas() if {"--help", "-h"} & set(flags) else nullcontext():
                main(as_task(body, failures))()
        except Refusal as refusal:
            raise refusal.error from None
        except (JobFailed, RnnclfError) as error:
            return Outcome(swept_folder(), error)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error) from error
        except OSError as error:
            file = error.filename or "the files of this run"
            raise OutputError(f"Cannot write {file}: {error.strerror}.") from error
    if failures:
        raise failures[0]
    return Outcome(swept_folder(), None)


def swept_folder() -> Path | None:
    """The folder of the sweep that is on or was on last; None after a single run."""
    return Checks.sweep_folder


def flags_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Flags and overrides apart: Hydra 1.3 refuses `a=1 -m b=2` and `--info a=1`.

    A word that starts like a flag and is none raises ConfigError.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
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
            raise ConfigError(
                f"No flag named '{word}'.{did_you_mean(word, known)} All flags: rnnclf train --hydra-help."
            )
    return flags, overrides


@contextmanager
def _help_without_schemas() -> Iterator[None]:
    """Hydra's help lists every group; those that hold our schemas are no choice of the user's."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:  # Hydra may leave by sys.exit
        lines = text.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith("schema"))


@contextmanager
def _as_process(argv: list[str]) -> Iterator[None]:
    """sys.argv for Hydra's parser, and errors raised to us: by default Hydra prints them and exits.

    A log that cannot be written (a full disk) is no reason to print tracebacks.
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
