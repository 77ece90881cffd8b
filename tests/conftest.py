"""Shared fixtures: a separate folder per test, and the command line run in this process."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.console import screen
from rnnclf.system.helper import kept

# asserts in helpers explain themselves as those in tests do
pytest.register_assert_rewrite("tests.cells", "tests.data", "tests.training", "tests.workflows")

if "PYTEST_XDIST_WORKER" in os.environ:
    # other workers need the cores, too
    torch.set_num_threads(1)
    os.environ["POLARS_MAX_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent

Cli = Callable[..., Any]


REAL = Path(os.environ.get("RNNCLF_DATA", ROOT.parent / "shared" / "data"))
needs_mnist = pytest.mark.skipif(
    not (REAL / "MNIST" / "raw").is_dir(), reason=f"the MNIST files are not in {REAL}; RNNCLF_DATA names them"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take their time; the others are stopped when they hang."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(autouse=True, scope="session")
def _one_helper() -> Iterator[None]:
    """The process in which some files are read serves all tests: it takes a while to start."""
    with kept():
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_folder_of_machine_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one test has compiled serves all, in all workers, although each has a cache folder of its own."""
    own = tmp_path_factory.getbasetemp()  # of this worker, within that of the session
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "machine-code"
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("llvmlite"):
            patch.setattr("rnnclf.engine.machine.cache.cache_folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs every test in its own folder; undoes Hydra's changes to logging and ours to torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RNNCLF_DATA", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets a width
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    screen._to_stderr = False  # which --json sets, also in fixtures of a module, which come before this one
    with logging_restored():
        yield
    screen._to_stderr = False
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@contextmanager
def logging_restored() -> Iterator[None]:
    """Undoes Hydra's changes to logging; also for fixtures of a module or a session that run commands."""
    loggers = [logging.getLogger(), logging.getLogger("rnnclf")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


@pytest.fixture
def cli() -> Cli:
    """Runs `rnnclf WORDS…` in this process; the result has exit_code, stdout, stderr and output."""

    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def only_run(tmp_path: Path) -> Callable[[], Path]:
    """Finds the only run folder under outputs/."""

    def find() -> Path:
        (folder,) = (tmp_path / "outputs").glob("*/*")
        return folder

    return find


@pytest.fixture(params=[80, pytest.param(120, marks=pytest.mark.slow)])
def terminal(request, monkeypatch) -> int:
    """Makes Rich believe in a terminal, and says how wide it is."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def rows_without_times(path: Path) -> list[dict[str, str]]:
    """The lines of an epochs.csv."""
    with open(path) as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
