"""Weights & Biases: an offline run in the run folder, or with WANDB_MODE=online a run on its server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rnnclf.trackers.base import PROJECT, Epoch, TrackedRun, Tracker


class Wandb(Tracker):
    """Weights & Biases, offline unless WANDB_MODE=online; the project is `rnnclf` or WANDB_PROJECT.

    An offline run lies in `wandb/` of the run folder until `wandb sync` sends it. It cannot be continued, and
    what was written last is lost when it is killed. So each time a run is taken up again, a new offline run
    with the same id takes the place of the earlier one and gets all epochs.
    """

    module = "wandb"
    settings: ClassVar[Mapping[str, str]] = {
        "WANDB_SILENT": "true",  # also while it logs in
        "WANDB_INIT_TIMEOUT": "20",
        "WANDB_FINISH_TIMEOUT": "60",  # without one it waits for its server for ever
        "WANDB_FINISH_TIMEOUT_RAISES": "true",
    }

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or "offline"
        for earlier in run.folder.glob(f"wandb/offline-run-*-{run.ident}"):
            shutil.rmtree(earlier, ignore_errors=True)
        self.run = wandb.init(
            project=run.place["project"],
            group=run.group,
            id=run.ident,
            name=run.ident,
            config=dict(run.config),
            resume="allow" if mode == "online" else None,
            mode=mode,
            reinit="finish_previous",
            dir=str(run.folder),
            settings=wandb.Settings(
                silent=True,
                console="off",  # the screen is ours
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )

    @staticmethod
    def where(known: Mapping[str, str]) -> dict[str, str]:
        return {"project": os.environ.get("WANDB_PROJECT") or known.get("project") or PROJECT}

    @staticmethod
    def viewer(folder: str, place: Mapping[str, str], several: bool) -> str:
        if os.environ.get("WANDB_MODE") == "online":
            return os.environ.get("WANDB_BASE_URL", "https://wandb.ai")
        return f"wandb sync {folder}{'/*' if several else ''}/wandb/offline-run-*"

    def send(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:  # online, steps that the server has already are ignored
            self.run.log({**epoch.values, "_timestamp": epoch.time}, step=epoch.number)

    def end(self, state: str, results: Epoch | None) -> None:
        if results is not None:
            self.run.summary.update(dict(results.values))
        self.run.finish(exit_code=0 if state == "done" else 1)
