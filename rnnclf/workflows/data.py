"""Checks a data set before training. Does not import torch."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from rnnclf.baselines.quick import Quick, nearest_by_summary
from rnnclf.config import Config
from rnnclf.data import SPLITS, Source, SplitName
from rnnclf.data.base import refuse_one_class
from rnnclf.data.doubts import Finding, Severity, giveaways, refuse_untrained
from rnnclf.data.findings import ChannelFacts, channel_facts, findings
from rnnclf.data.gaps import without_gaps
from rnnclf.data.recordings import Array, Progress, Recordings, silent
from rnnclf.data.splits import divide
from rnnclf.data.survey import Moments, digests, moments
from rnnclf.errors import RnnclfError
from rnnclf.hydra_app.compose import composed, new_words
from rnnclf.hydra_app.grammar import literal
from rnnclf.hydra_app.words import as_path, is_override

OF_DATA = ("dataset", "plugins")
"""What the words about data begin with."""


@dataclass(frozen=True, eq=False)
class Example:
    """One training sequence of a class, to be drawn: x_TC as read from the file, NaN for missing values."""

    label: str
    x_TC: Array


@dataclass(frozen=True, eq=False)
class Checked:
    """The result of checking a data set."""

    config: Config
    words: tuple[str, ...]
    """The words that were given, and words that handle the problems found."""
    sequences: int
    steps: tuple[int, int, int]
    """The length of the shortest, the median and the longest sequence."""
    even: bool
    """Whether the steps have no time stamps."""
    channels: tuple[ChannelFacts, ...]
    members: dict[SplitName, dict[str, int]]
    """The number of sequences of each class in each split."""
    groups: int | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    obstacle: str | None
    """Why these data cannot be split and trained on as they are; None if they can."""
    fingerprint: str
    examples: tuple[Example, ...]
    quick: Quick | None = None
    """How far nearest neighbours get on the training and the validation split; None for pictures."""

    @property
    def baseline_line(self) -> str:
        """The command that computes baselines on these data."""
        chosen = [word for word in self.words if word.startswith(OF_DATA) or not is_override(word)]
        return shlex.join(("rnnclf", "baseline", *chosen))

    @property
    def line(self) -> str:
        """The command that trains on these data."""
        return shlex.join(("rnnclf", "train", *self.words))

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": asdict(self.config.dataset),
            "sequences": self.sequences,
            "steps": dict(zip(("shortest", "median", "longest"), self.steps, strict=True)),
            "channels": [asdict(channel) for channel in self.channels],
            "classes": self.members,
            "groups": self.groups,
            "notes": self.notes,
            "findings": [asdict(finding) for finding in self.findings],
            "obstacle": self.obstacle,
            "fingerprint": self.fingerprint,
            "nearest_neighbour": None if self.quick is None else self.quick._asdict(),
            "train": self.line,
        }


def check(words: list[str], progress: Progress = silent) -> Checked:
    """Reads a whole data set and checks it.

    `words` are words of the train command.
    Raises DataError or ConfigError if the data cannot be read. If they can be read but not split, `obstacle`
    in the result says why.
    """
    import numpy as np

    typed = [as_path(word) for word in words]
    words = new_words(typed)
    config = composed(words)
    recordings = config.dataset.sequences(progress)
    found, hashes = moments(recordings, progress), digests(recordings, progress)
    options, pictures = _options(config.dataset), config.dataset.layout() is not None
    normalised = config.dataset.normalise != "none"
    problems = findings(recordings, found, hashes, options, pictures, normalised)
    try:
        parts, doubts = _divide(config, recordings, progress)
        obstacle = None
    except RnnclfError as error:
        parts, obstacle = {"train": np.arange(len(recordings))}, str(error)
        doubts = [] if pictures else giveaways(recordings, found, "channels" in options)
    problems = [*doubts, *problems]
    helpful = [word for problem in problems for word in problem.words]
    helpful += _without(recordings, problems) if "channels" in options else []
    chosen = {word.split("=")[0] for word in words}
    if config.dataset.missing == "auto":
        chosen.add("dataset.missing")
    return Checked(
        config=config,
        words=(*typed, *(word for word in helpful if word.split("=")[0] not in chosen)),
        sequences=len(recordings),
        steps=tuple(np.percentile(recordings.lengths_N, (0, 50, 100)).astype(int).tolist()),
        even=recordings.times_S is None,
        channels=channel_facts(recordings, found),
        members=_members(recordings, parts),
        groups=None if recordings.groups_N is None else len(np.unique(recordings.groups_N)),
        notes=recordings.notes,
        findings=tuple(sorted(problems, key=lambda finding: get_args(Severity).index(finding.severity))),
        obstacle=obstacle,
        fingerprint=hashes.fingerprint(recordings),
        examples=_examples(recordings, parts["train"]),
        quick=None if pictures or obstacle is not None else _quick(recordings, found, parts),
    )


def _divide(
    config: Config, recordings: Recordings, progress: Progress
) -> tuple[dict[SplitName, Array], list[Finding]]:
    """The three splits as in training, and reasons to doubt scores on them."""
    source = config.dataset
    refuse_one_class(recordings)
    missing = "mask" if source.missing == "error" else source.missing  # as in the suggested command
    recordings = without_gaps(recordings, missing)
    parts = divide(recordings, source.plan())
    refuse_untrained(recordings, parts)
    return parts, source.doubts(recordings, digests(recordings, progress).digests_N, parts, progress)


def _quick(recordings: Recordings, found: Moments, parts: dict[SplitName, Array]) -> Quick | None:
    import numpy as np

    which = np.sort(np.concatenate((parts["train"], parts["validation"])))
    return nearest_by_summary(recordings, found, which)


def _options(source: Source) -> set[str]:
    return {field.name for field in fields(source)}


def _without(recordings: Recordings, problems: list[Finding]) -> list[str]:
    """The word that chooses the channels without those that should be left out."""
    left_out = {name for problem in problems for name in problem.without}
    kept = [name for name in recordings.channels if name not in left_out]
    return [f"dataset.channels=[{','.join(map(literal, kept))}]"] if left_out and kept else []


def _members(recordings: Recordings, parts: dict[SplitName, Array]) -> dict[SplitName, dict[str, int]]:
    import numpy as np

    k = len(recordings.classes)
    return {
        name: dict(
            zip(
                recordings.classes,
                np.bincount(recordings.labels_N[parts[name]], minlength=k).tolist(),
                strict=True,
            )
        )
        for name in SPLITS
        if name in parts
    }


def _examples(recordings: Recordings, train: Array) -> tuple[Example, ...]:
    """The first training sequence of each class."""
    import numpy as np

    labels_n = recordings.labels_N[train]
    found = []
    for k, label in enumerate(recordings.classes):
        if (labels_n == k).any():
            n = train[int((labels_n == k).argmax())]
            start, length = recordings.starts_N[n], recordings.lengths_N[n]
            x_TC = np.asarray(recordings.values_SC[start : start + length], np.float64)
            found.append(Example(label, x_TC / recordings.unit))
    return tuple(found)
