"""Trains every cell, and on every kind of data set, and prints a hash of what came of each.

    python -m tests.repeating FOLDER     # where the data are made

Two such processes must print the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability.kill import essence
from rnnclf.cells import CELLS
from rnnclf.config import Config
from rnnclf.data import DATASETS
from rnnclf.data.images import EMNIST
from rnnclf.data.synthetic import Waves, make
from rnnclf.hydra_app import load_config
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.data.pictures import MAKERS, emnist_like

WORDS = "dataset=digits hidden=4 epochs=1 threads=2 dropout=0.2 batch_size=30 seed=3"


def runs(folder: Path) -> Iterator[tuple[str, Config]]:
    """A small run for each cell and for each kind of data set, by their names."""
    config = load_config(WORDS.split())
    yield "dataset=digits", config
    for name, path in own_data(folder).items():
        config = replace(config, dataset=DATASETS[name](path=str(path), missing="mask"))
        yield f"dataset={name}", config
    for name in CELLS.names():
        size = 4 * CELLS[name]().multiple
        yield f"cell={name}", replace(config, hidden=size, cell=CELLS[name](hidden_size=size))
    with pytest.MonkeyPatch.context() as patch:
        for kind, maker in MAKERS.items():
            options = {"variant": "digits"} if kind is EMNIST else {}
            emnist_like(folder, patch, **options) if options else maker(folder, patch)
            source = kind(root=str(folder), validation=10, **options)
            yield f"dataset={kind.name}", replace(config, dataset=source)


def own_data(folder: Path) -> dict[str, Path]:
    """Small data by the name of what reads them."""
    paths = {"table": folder / "a.csv", "arrays": folder / "a.npz", "folder": folder / "a"}
    for path in paths.values():
        make(path, Waves(sequences=60, channels=2, length=8, missing=0.05))
    lines = np.column_stack((np.arange(60) % 3, np.random.default_rng(0).normal(size=(60, 9)).round(3)))
    np.savetxt(folder / "a.tsv", lines, fmt="%g", delimiter="\t")
    return {**paths, "archive": folder / "a.tsv"}


def outcome(config: Config) -> str:
    """A hash of all that a run leaves, without times."""
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        train(config, folder)
        return hashlib.sha256(repr(essence(folder)).encode()).hexdigest()


def outcomes(folder: Path) -> dict[str, str]:
    """Those of all runs. The data are made anew, in the same place, which their checkpoints name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return {name: outcome(config) for name, config in runs(folder)}


if __name__ == "__main__":
    print(json.dumps(outcomes(Path(sys.argv[1]))))
