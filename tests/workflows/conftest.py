"""Runs and sweeps that are made once, and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.reliability import fuzz
from rnnclf.cli import app
from rnnclf.hydra_app.grammar import quoted
from tests.workflows.sweeps import SMALL


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A run and a sweep folder made by the program, and their files as bytes."""
    return fuzz.prepare(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def run(ground, tmp_path) -> Path:
    """A run folder with all its files."""
    shutil.copytree(ground.folder / "made" / "0", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def best(run, tmp_path) -> Path:
    """A good checkpoint, as it would be received."""
    return (run / "best.safetensors").rename(tmp_path / "received.safetensors")


@pytest.fixture(scope="session")
def two_jobs_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "sweep"
    words = ["-m", f"hydra.sweep.dir={quoted(str(folder))}", *SMALL, "seed=0,1"]
    assert CliRunner().invoke(app, ["train", *words]).exit_code == 0
    return folder


@pytest.fixture
def two_jobs(two_jobs_once, tmp_path) -> Path:
    """A sweep of two jobs, seed=0,1, both done."""
    shutil.copytree(two_jobs_once, tmp_path / "sweep")
    return Path("sweep")
