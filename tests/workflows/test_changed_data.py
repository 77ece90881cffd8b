"""Mapped files that change during a run: it ends as failed, and no wrong result is recorded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rnnclf import checkpoint
from rnnclf.config import Config
from rnnclf.data import dataset
from rnnclf.errors import CheckpointError, DataError
from rnnclf.hydra_app import load_config
from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.workflows import evaluation_data as evaluation
from rnnclf.workflows import train as training
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.resume import resume_run as resume
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher, train
from tests.data.arrays import folder

CHANGED = r"x\.npy changed while it was being read: try again when it is complete\."
N = 90


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    path = folder(tmp_path_factory.mktemp("data") / "big")
    words = ["dataset=arrays", f"dataset.path={path}", "hidden=4", "epochs=3", "batch_size=20", "threads=1"]
    return load_config(words)


@pytest.fixture
def x(config, monkeypatch) -> Path:
    """The file of an array that counts as too large to be copied to memory."""
    monkeypatch.setattr(dataset, "RESIDENT", 0)
    y_N = np.arange(N) % 3
    noise_NTC = np.random.default_rng(0).normal(size=(N, 6, 2)).astype(np.float32)
    path = Path(config.dataset.path)
    folder(path, x=noise_NTC + y_N[:, None, None].astype(np.float32), y=y_N)
    return path / "x.npy"


def change(path: Path) -> None:
    np.load(path, mmap_mode="r+")[...] *= -1
    moment = path.stat().st_mtime_ns + 1  # the clock of a file system may stand still for milliseconds
    os.utime(path, ns=(moment, moment))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


class At(Watcher):
    """Changes the file after a batch of an epoch or, with batch 0, after the epoch."""

    def __init__(self, path: Path, epoch: int, batch: int, how=change) -> None:
        self.path, self.place, self.how, self.batches = path, (epoch, batch), how, 0

    def batch(self, progress: BatchProgress) -> None:
        self.batches += 1
        if (progress.epoch, self.batches) == self.place:
            self.how(self.path)

    def epoch(self, result: EpochResult, best: bool) -> None:
        self.batches = 0
        if (result.epoch, 0) == self.place:
            self.how(self.path)


def status(run: RunFolder) -> tuple[str, str]:
    read = run.read_status()
    return read["state"], read["error"]


@pytest.mark.parametrize(
    ("epoch", "batch", "how", "saved"),
    [
        (1, 1, change, None),
        (1, 3, cut_short, None),
        (1, 0, cut_short, 1),
        (2, 3, change, 1),
        (3, 0, change, 3),
    ],
    ids=["in the first epoch", "cut short", "cut short between epochs", "last batch", "before it is scored"],
)
def test_a_run_whose_data_change_fails_and_keeps_the_checkpoint_from_before(
    config, x, tmp_path, epoch, batch, how, saved
):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(DataError, match=CHANGED):
        train(config, run, At(x, epoch, batch, how))
    assert status(run) == ("failed", f"{x} changed while it was being read: try again when it is complete.")
    assert not run.results.exists()
    if saved is None:
        assert not run.last.exists()
    else:
        assert checkpoint.load(run.last).epoch == saved


def test_a_run_whose_data_have_changed_is_not_resumed_until_they_are_restored(config, x, tmp_path):
    run, before = RunFolder(tmp_path / "run"), x.read_bytes()
    with pytest.raises(DataError, match=CHANGED):
        train(config, run, At(x, 2, 1))
    with pytest.raises(CheckpointError, match=f"{run.path} was trained on: they have changed"):
        resume(run)
    x.write_bytes(before)
    assert resume(run).results["epochs"] == 3


def test_an_evaluation_of_data_that_change_meanwhile_is_refused(config, x, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    train(config, run)

    def changing(*arguments: object) -> object:
        found = training.evaluate_model(*arguments)
        change(x)
        return found

    monkeypatch.setattr(evaluation, "evaluate_model", changing)
    with pytest.raises(DataError, match=CHANGED):
        evaluate(run.path)
