"""What only MLflow does; where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.tracking import Mirror, track_jobs
from tests.trackers.stand_ins import write_epochs
from tests.workflows.finished_runs import rewrite
from tests.workflows.finished_sweeps import Done, finished_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")


def runs_of(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("rnnclf")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_the_runs_of_a_sweep_have_one_parent_and_end_as_they_did(client, tmp_path):
    sweep = finished_sweep(
        tmp_path / "grid", Done(["seed=0"], 0.9, 0.9), Done(["seed=1"], 0.8, 0.8, error="x")
    )
    track_jobs(sweep, "mlflow")
    for job in "01":
        write_epochs(RunFolder(sweep / job), 2)
        Mirror(RunFolder(sweep / job), "mlflow").end()
    parent, first, second = sorted(runs_of(client).values(), key=lambda run: run.info.run_name)
    assert [run.info.status for run in (parent, first, second)] == ["FINISHED", "FINISHED", "FAILED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.info.run_id}
    assert first.data.params["seed"] == "0"
    assert first.data.metrics["result/test_accuracy"] == 0.9
    assert "result/test_accuracy" not in second.data.metrics


def test_a_run_that_is_resumed_elsewhere_stays_in_its_database(client, tmp_path, monkeypatch):
    run = RunFolder(finished_sweep(tmp_path / "grid", Done(["seed=0"], 0.9, 0.9)) / "0")
    write_epochs(run, 2)
    Mirror(run, "mlflow").catch_up()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_epochs(run, 3)
    rewrite(run.results, epochs=3)
    Mirror(run, "mlflow").end()
    assert not Path("mlflow.db").exists()
    (found,) = [found for name, found in runs_of(client).items() if name.endswith("-0")]
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert [metric.step for metric in history] == [1, 2, 3]
