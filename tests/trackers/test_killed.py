"""Real runs with real trackers, killed twice and resumed, read back from the tracker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rnnclf.workflows.runs import RunFolder, read_csv
from tests.trackers.stand_ins import told
from tests.workflows.sweeps import shell, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of what reads the trackers

EPOCHS = 40


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_forty_epochs_are_there_once_after_two_kills(name, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    run = RunFolder(Path("run"))
    words = ("dataset=digits", "cell=basic", "hidden=8", f"epochs={EPOCHS}", "threads=1")
    begin = ("train", *words, "hydra.run.dir=run", f"tracker={name}")
    for command, epochs in ((begin, 9), (("resume", "run"), 21)):
        process = started(command)
        wait_for(lambda epochs=epochs: len(read_csv(run.epochs)) >= epochs)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert shell("resume", "run").returncode == 0
    rows = read_csv(run.epochs)
    assert len(rows) == EPOCHS
    for key in ("validation_accuracy", "train_loss", "seconds"):
        steps, values = zip(*told(name, run, key), strict=True)
        assert steps == tuple(range(1, EPOCHS + 1))
        assert values == pytest.approx([float(row[key]) for row in rows], rel=1e-6)
    assert len(told(name, run, "result/test_accuracy")) == 1
