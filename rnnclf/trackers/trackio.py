"""Trackio: a local database, in TRACKIO_DIR or its own default."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rnnclf.trackers.base import PROJECT, Epoch, TrackedRun, Tracker


class Trackio(Tracker):
    """Trackio, in its local database; the project is `rnnclf` or TRACKIO_PROJECT.

    It writes a moment later than it is told, so a kill may cost it the last epochs, and it would keep what it
    is told twice. So it is asked what it has, and gets the rest.
    """

    module = "trackio"
    settings: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "TRACKIO_SHOW_DASHBOARD_ADVICE": "0"}

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self.project, self.name = run.place["project"], run.ident
        self.finish = trackio.finish  # of the module: the run's own would print once more at exit
        self.run = trackio.init(
            project=self.project,
            name=run.ident,
            group=run.group,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def has(self) -> set[int]:
        return self._steps_with("validation_accuracy")

    @staticmethod
    def where(known: Mapping[str, str]) -> dict[str, str]:
        return {"project": os.environ.get("TRACKIO_PROJECT") or known.get("project") or PROJECT}

    @staticmethod
    def viewer(folder: str, place: Mapping[str, str], several: bool) -> str:
        return f"trackio show --project {shlex.quote(place['project'])}"

    def send(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            self.run.log(dict(epoch.values), step=epoch.number)

    def end(self, state: str, results: Epoch | None) -> None:
        if results is not None and results.number not in self._steps_with(next(iter(results.values))):
            self.run.log(dict(results.values), step=results.number)
        self.finish()

    def _steps_with(self, key: str) -> set[int]:
        from trackio.sqlite_storage import SQLiteStorage  # not public: trackio has no other way to read back

        return {int(row["step"]) for row in SQLiteStorage.get_logs(self.project, self.name) if key in row}
