"""MLflow: a SQLite database in the current folder, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rnnclf.trackers.base import PROJECT, Epoch, TrackedRun, Tracker

URI = "MLFLOW_TRACKING_URI"
MOST_METRICS = 1000  # in one request, which is one transaction
MOST_PARAMETERS = 100
LONGEST = 6000  # characters of a parameter
STATES = {"done": "FINISHED", "failed": "FAILED"}
RUN, SWEEP = "rnnclf.run", "rnnclf.sweep"
"""The tags by which runs and sweeps are found again."""


class MLflow(Tracker):
    """MLflow, in mlflow.db of the current folder unless MLFLOW_TRACKING_URI says otherwise.

    The runs of a sweep have a common parent run. The experiment is `rnnclf`, unless MLFLOW_EXPERIMENT_NAME
    says otherwise.
    """

    module = "mlflow"
    settings: ClassVar[Mapping[str, str]] = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # training waits for the answer; a mirror tries again later
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        # the variable may hold a password, which `place` does not
        self.client = MlflowClient(os.environ.get(URI) or run.place["uri"])
        experiment = self._experiment(run.place["project"])
        found = self._found(experiment, RUN, run.ident)
        if found is None:
            tags = {"mlflow.runName": run.ident, RUN: run.ident}
            if run.group is not None:
                tags["mlflow.parentRunId"] = self._parent(experiment, run.group)
            found = self.client.create_run(experiment, tags=tags)
        else:
            self.client.update_run(found.info.run_id, status="RUNNING")
        self.run = found.info.run_id
        self._describe(run, found.data.params)

    def has(self) -> set[int]:
        history = self.client.get_metric_history(self.run, "validation_accuracy")
        return {metric.step for metric in history}

    @staticmethod
    def where(known: Mapping[str, str]) -> dict[str, str]:
        uri = os.environ.get(URI) or known.get("uri") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or known.get("project") or PROJECT
        return {"uri": re.sub(r"//[^/@]*@", "//", uri), "project": project}

    @staticmethod
    def viewer(folder: str, place: Mapping[str, str], several: bool) -> str:
        uri = place["uri"]
        return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"

    def send(self, epochs: Sequence[Epoch]) -> None:
        batch: list[Any] = []
        for epoch in epochs:
            metrics = self._metrics(epoch)
            if len(batch) + len(metrics) > MOST_METRICS:  # an epoch is sent as a whole: `has` relies on that
                self.client.log_batch(self.run, batch)
                batch = []
            batch += metrics
        self.client.log_batch(self.run, batch)

    def end(self, state: str, results: Epoch | None) -> None:
        if results is not None:  # the same step, time and value as before would be the same row
            self.client.log_batch(self.run, self._metrics(results))
        self.client.set_terminated(self.run, STATES.get(state, "KILLED"))

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self.client.get_experiment_by_name(name)) is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException:  # another job of the sweep has just created it
                if (found := self.client.get_experiment_by_name(name)) is None:
                    raise
        return str(found.experiment_id)

    def _found(self, experiment: str, tag: str, value: str) -> Any:
        runs = self.client.search_runs(
            [experiment], f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"]
        )
        return runs[0] if runs else None

    def _parent(self, experiment: str, group: str) -> str:
        """The run that stands for a sweep. It is ended at once, or it would run for ever after a kill."""
        found = self._found(experiment, SWEEP, group)
        if found is None:
            found = self.client.create_run(experiment, tags={"mlflow.runName": group, SWEEP: group})
            self.client.set_terminated(found.info.run_id)
        return str(found.info.run_id)

    def _describe(self, run: TrackedRun, known: dict[str, str]) -> None:
        """Sends the configuration; of a key that has a value already, MLflow takes no other."""
        from mlflow.entities import Param

        new = [Param(k, str(v)[:LONGEST]) for k, v in run.config.items() if k not in known]
        for first in range(0, len(new), MOST_PARAMETERS):
            self.client.log_batch(self.run, params=new[first : first + MOST_PARAMETERS])

    def _metrics(self, epoch: Epoch) -> list[Any]:
        from mlflow.entities import Metric

        milliseconds = int(1000 * epoch.time)
        return [Metric(name, value, milliseconds, epoch.number) for name, value in epoch.values.items()]
