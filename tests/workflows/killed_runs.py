"""Runs on the digits that are killed at a batch, and runs that are not, to compare them."""

from __future__ import annotations

import functools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.data.synthetic import Waves, make
from rnnclf.hydra_app import load_config
from rnnclf.system.claims import RECORD
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import RunInfo, Watcher, train

# 6 batches of 50 an epoch, 5 of them whole
DIGITS = "dataset=digits dataset.validation=30 dataset.test=1500 hidden=4 batch_size=50 epochs=3 threads=1"


class Kill(BaseException):
    """What no code catches, as it could not catch SIGKILL."""


@dataclass
class Witness(Watcher):
    """Sees what a run does, and kills it at a batch."""

    kill_at: int = 0
    """Counted from 1 in this life; 0: never."""
    batches: list[BatchProgress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def started(self, info: RunInfo) -> None:
        self.notes += info.notes

    def batch(self, progress: BatchProgress) -> None:
        self.batches.append(progress)
        if len(self.batches) == self.kill_at:
            raise Kill

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@functools.cache
def own_data() -> Path:
    """A table of ragged sequences with gaps."""
    path = Path(tempfile.mkdtemp()) / "waves.csv"
    make(path, Waves(sequences=90, channels=2, length=12, missing=0.05))
    return path


def config_of(words: str) -> Any:
    base = DIGITS if "dataset=" not in words else "hidden=4 batch_size=10 epochs=3 threads=1"
    return load_config([*base.split(), *words.replace("OWN", str(own_data())).split()])


@functools.cache
def in_peace(words: str) -> RunFolder:
    """A run that nobody disturbs."""
    folder = RunFolder(Path(tempfile.mkdtemp()))
    train(config_of(words), folder)
    return folder


def killed(words: str, batches: int, path: Path) -> RunFolder:
    """A run that is killed after so many batches."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    with pytest.raises(Kill):
        train(config_of(words), folder, Witness(batches))
    return folder


def of_peace(words: str, path: Path) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(Path(shutil.copytree(in_peace(words).path, path)))


def assert_as_in_peace(folder: RunFolder, words: str) -> None:
    assert differences(folder.path, in_peace(words).path) == []
    assert folder.read_status()["state"] == "done"


def content(folder: RunFolder) -> dict[str, bytes]:
    """Every file but the log and the record of who writes there."""
    others = folder.log, folder.path / RECORD
    files = [path for path in folder.path.rglob("*") if path.is_file() and path not in others]
    return {str(path): path.read_bytes() for path in files}


# Bit for bit

CASES = {
    "dropout": "layers=2 dropout=0.4 schedule=onecycle checkpoint.every=2steps",
    "zoneout": "cell=lstm zoneout=0.3 optimizer=sgd schedule=cosine schedule.warmup=0.2 clip=0.1",
    "momentum": "cell=gru optimizer=rmsprop optimizer.momentum=0.5 schedule=constant checkpoint.every=4steps",
    "balanced": "cell=cfc recurrent_dropout=0.3 optimizer=adamw sampling=balanced class_weights=balanced"
    " checkpoint.every=1steps",
    "tutorial": "protocol=tutorial clip=null checkpoint.every=3steps",
    "augmented": "cell=mingru layers=2 norm=batch augment=image checkpoint.every=5steps",
    "bidirectional": "cell=lem bidirectional=true layers=2 dropout=0.2 variational=true readout=attention",
    "ragged": "dataset=table dataset.path=OWN dataset.missing=mask dropout=0.2 focal=2"
    " checkpoint.every=2steps",
    "series": "dataset=table dataset.path=OWN dataset.missing=interpolate cell=fastgrnn augment=series",
    "diagnosed": "diagnose=true checkpoint.every=4steps",
    "averaged": "average=ema layers=2 norm=batch dropout=0.3 checkpoint.every=4steps final_fit=true",
    "averaged at the end": "average=swa average.start=0.4 protocol=tutorial patience=2"
    " checkpoint.every=3steps",
}
