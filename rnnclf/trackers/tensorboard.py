"""TensorBoard: event files in the run folder, so that `tensorboard --logdir outputs` shows all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnnclf.trackers.base import Epoch, TrackedRun, Tracker


class TensorBoard(Tracker):
    """TensorBoard, with its event files in the run folder; sweeps are folders there, too.

    Each time a run is taken up again it gets a new event file, which replaces the earlier ones: it begins
    with the instruction to forget all steps so far, and then repeats them.
    """

    module = "tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder), purge_step=0)
        rows = "".join(f"| {key} | {value} |\n" for key, value in run.config.items())
        self.writer.add_text("configuration", f"| key | value |\n| --- | --- |\n{rows}", 0)

    @staticmethod
    def viewer(folder: str, place: Mapping[str, str], several: bool) -> str:
        return f"tensorboard --logdir {folder}"

    def send(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            self._add(epoch)
        self.writer.flush()

    def end(self, state: str, results: Epoch | None) -> None:
        if results is not None:
            self._add(results)
        self.writer.close()

    def _add(self, epoch: Epoch) -> None:
        for name, value in epoch.values.items():
            self.writer.add_scalar(name, value, epoch.number, epoch.time)
