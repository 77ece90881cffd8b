"""What a tracker has to do: hold each epoch of a run once, however often the run is killed and resumed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from rnnclf.errors import ConfigError

PROJECT = "rnnclf"
"""The project that runs belong to, unless the tracker's own environment variable names another."""


@dataclass(frozen=True)
class Epoch:
    """A line of epochs.csv.

    time: when the epoch ended, in seconds since 1970. It is worked out from the start of the run and the
        seconds of its epochs, so it is the same when the epoch is sent again.
    """

    number: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """A run as it is introduced to a tracker."""

    folder: Path
    ident: str
    """Stays the same when the run is resumed, and belongs to no other run; shown as its name, too."""
    group: str | None
    """The name of the sweep it belongs to."""
    config: Mapping[str, Any]
    """Keys as typed on the command line, and their values."""
    place: Mapping[str, str]
    """What `Tracker.where` gave."""


class Tracker(ABC):
    """A run in a tracker. Constructing it introduces the run, or finds it where it was introduced before.

    The methods raise whatever the tracker's library raises.
    """

    module: ClassVar[str]
    """The library to be imported; also the extra of this package that installs it."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Environment variables to be set before the import, unless the user has set them."""

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None: ...

    def has(self) -> set[int]:
        """The epochs that it holds for certain. The others are sent, so by default all are sent again."""
        return set()

    @staticmethod
    def where(known: Mapping[str, str]) -> dict[str, str]:
        """Where the run is kept: what environment variables say, else what is known from earlier, else the
        default. It is written down, so it holds no secrets."""
        return {}

    @staticmethod
    @abstractmethod
    def viewer(folder: str, place: Mapping[str, str], several: bool) -> str:
        """The command that shows what was tracked, or the address.

        Args:
            folder: that of the run, quoted for a shell; of several runs, the one that they are in.
            place: what `where` gave.
        """

    @abstractmethod
    def send(self, epochs: Sequence[Epoch]) -> None:
        """Adds epochs, in order."""

    @abstractmethod
    def end(self, state: str, results: Epoch | None) -> None:
        """Ends the run; it can be constructed again if the run is resumed.

        Args:
            state: done, failed or interrupted; anything else for a run that was killed.
            results: the final scores, with the number of the last epoch; None if there are none.
        """


def installed(name: str, tracker: type[Tracker]) -> None:
    """Raises ConfigError if the library of a tracker is missing."""
    if find_spec(tracker.module) is None:
        raise ConfigError(f"tracker={name} is not installed: pip install 'rnnclf[{tracker.module}]'.")
