"""Classifiers from the literature to judge a trained model by, by the name used on the command line."""

from rnnclf.baselines.base import Baseline, Clock, Sequences
from rnnclf.baselines.dtw import NearestDTW
from rnnclf.baselines.forest import Forest
from rnnclf.baselines.minirocket import MiniRocket
from rnnclf.registry import Registry

__all__ = ["BASELINES", "Baseline", "Clock", "Sequences"]

BASELINES: Registry[type[Baseline]] = Registry(
    "baseline", {"dtw": NearestDTW, "forest": Forest, "minirocket": MiniRocket}
)
