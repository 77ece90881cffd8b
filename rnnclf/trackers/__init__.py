"""Experiment trackers, which show runs in a browser: one file each, by the name used on the command line.

None of them decides anything about a run. Each imports its library when a run is tracked, never before.
"""

from rnnclf.registry import Registry
from rnnclf.trackers.base import Epoch, TrackedRun, Tracker, installed
from rnnclf.trackers.mlflow import MLflow
from rnnclf.trackers.tensorboard import TensorBoard
from rnnclf.trackers.trackio import Trackio
from rnnclf.trackers.wandb import Wandb

__all__ = ["TRACKERS", "Epoch", "TrackedRun", "Tracker", "installed"]

TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker", {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb, "trackio": Trackio}
)
