"""From the words after `rnnclf train` to the real hydra.main, and back with what came of it."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import Config
from rnnclf.errors import ConfigError, JobFailed, OutputError, RnnclfError
from rnnclf.files import claim_folder
from rnnclf.hydra_app.checks import Refusal, Start, starting
from rnnclf.hydra_app.compose import explained, plugins_in, quoted
from rnnclf.hydra_app.job import Body, Isolate, Job, as_task, with_config
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
    """What came of a run or a sweep."""

    sweep_folder: Path | None
    """None after a single run."""
    error: Exception | None
    """Of a job; or of a launcher that ended before its jobs did."""

    @property
    def broke(self) -> bool:
        return self.error is not None and not isinstance(self.error, RnnclfError | JobFailed)


def run_hydra(
    body: Callable[[Config, Job], float],
    words: list[str],
    prog: str,
    isolate: Isolate = lambda job, work: work(),
    start: Start | None = None,
) -> Outcome:
    """Runs `body` under hydra.main with the words of a command line.

    Args:
        isolate: does the work of one job of a sweep, for instance in a process of its own.
        start: what to do when a run or a sweep starts.

    What the user can put right raises RnnclfError before any job starts. In a sweep a failing job
    leaves the others running.
    """
    flags, overrides = flags_and_overrides(words)
    register(plugins_in(overrides))
    return _run_main(with_config(body), [prog, *flags, *overrides], isolate, start or Start())


def run_again(
    body: Callable[[Job], float | None], folder: Path, names: list[str], words: list[str], isolate: Isolate
) -> Outcome:
    """Runs `body` as the jobs of these names in the sweep `folder`, by the launcher that `words` choose.

    To Hydra this is a sweep over their names, in a folder of its own inside the other, so that nothing
    there is written over. What they are to do is for `body` to know: Hydra composes nothing for them.

    Raises an RnnclfError for words that Hydra does not understand.
    """
    if odd := [word for word in words if not word.startswith(("hydra/", "hydra."))]:
        raise ConfigError(f"'{odd[0]}' says nothing about how jobs are launched.")
    record = claim_folder(folder / ".resumed")
    way = os.path.relpath(folder, record)
    own = [
        *(f"hydra.sweep.dir={quoted(str(record))}", f"hydra.sweep.subdir='{way}/${{job}}'"),
        *(f"+job={','.join(names)}", "hydra.output_subdir=null", "~hydra.callbacks.checks"),
        "hydra/hydra_logging=disabled",  # it would number the jobs from 0
    ]
    register([])
    start, argv = Start(sweep_folder=folder), ["rnnclf resume", "-m", *words, *own]
    return _run_main(lambda composed, job: body(job), argv, isolate, start)


def _run_main(body: Body, argv: list[str], isolate: Isolate, start: Start) -> Outcome:
    GlobalHydra.instance().clear()  # a leftover of initialize() in this process: a notebook, a test
    failures: list[Exception] = []
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    with _as_process(argv), starting(start):
        try:
            with _help_without_schemas() if {"--help", "-h"} & set(argv) else nullcontext():
                main(as_task(body, failures, isolate))()
        except Refusal as refusal:
            raise refusal.error from None
        except (JobFailed, RnnclfError) as error:
            return Outcome(start.sweep_folder, error)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error) from error
        except OSError as error:
            file = error.filename or "the files of this run"
            raise OutputError(f"Cannot write {file}: {error.strerror}.") from error
        except Exception as error:
            if start.sweep_folder is not None:  # of a launcher: a job raises none of these
                return Outcome(start.sweep_folder, error)
            if isinstance(error, ValueError | TypeError | AssertionError):
                raise explained(error) from error  # of odd words, which Hydra does not expect
            raise
    if failures:
        raise failures[0]
    return Outcome(start.sweep_folder, None)


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
