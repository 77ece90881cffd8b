"""The names of columns that tell their role: ids, times, labels, groups and splits. Torch-free."""

from __future__ import annotations

import re

# For each role the names that identify it; later tuples only count if no column matches an earlier one.
ID = (
    ("id", "uid", "sequence", "seq", "series", "sample", "record", "recording", "case", "trial", "instance"),
    ("example", "segment"),
)
LABEL = (
    ("label", "class", "target", "category"),
    ("activity", "gesture", "species", "diagnosis", "outcome"),
    ("y",),
)
GROUP = (("group", "patient", "subject", "person"),)
SPLIT = (("split",),)

TIME = ("time", "timestamp", "datetime", "date")
CLOCKS = {*TIME, "ts", "elapsed", "epoch", "tick", "ticks", "second", "seconds", "sec", "secs", "ms", "msec"}
CLOCKS |= {"millis", "milliseconds", "us", "microseconds", "ns", "nanoseconds", "minutes", "hours", "days"}
COUNTERS = {"t", "step", "index", "frame", "frames"}
WITH_CLOCKS = {"s", "m", "h", "unix", "utc", "gps", "local", "rel", "relative", "nr", "no", "number", "in"}

ROW_NUMBERS = re.compile(r"Unnamed: \d+(\.\d+)*|__index_level_\d+__")  # columns that pandas adds


def standard(name: str) -> str:
    """The column name in a standard form: 'sequence' for 'Sequence_ID' and 'sequenceId'."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s\-.]+", "_", name.strip()).lower()
    return snake.removesuffix("_id") or snake


def is_clock(name: str, counters: bool = False) -> bool:
    """Whether every word of a name is one of time: time_ms, ts, elapsed; with `counters` also step and t."""
    words = set(re.findall("[a-z]+", standard(name)))
    core = CLOCKS | COUNTERS if counters else CLOCKS
    return bool(words & core) and words <= core | WITH_CLOCKS
