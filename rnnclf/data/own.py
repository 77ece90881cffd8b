"""The base class of the sources for user data: tables, arrays, folders and archives. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rnnclf.data.base import NORMALISERS, Source
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.windows import LABELS, SIZES, Windows, check_size
from rnnclf.errors import ConfigError
from rnnclf.files import absolute
from rnnclf.options import option

PATCHES = "auto or a whole number of at least 1"
LONG = 300  # steps; of longer sequences, patch=auto leaves about
LEFT = 75


@dataclass
class OwnData(Source):
    """Base of the sources that read the user's own data."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("path", "test_path")
    READS: ClassVar[str]
    """The forms of data that it reads, for messages: "tables (.csv, .tsv)"."""

    path: str | None = option(None, "the file or folder with the data", path=True, required=True)
    test_path: str | None = option(
        None, "a file or folder with the test split; null: drawn from the data", path=True
    )
    validation: float = option(
        0.15,
        "size of the validation split, which chooses the best epoch: a count, or a fraction below 1",
        above=0,
    )
    normalise: str = option(
        "standard",
        "rescale each channel, fitted on the training split: standard (mean 0, deviation 1), minmax (0 to 1),"
        " robust (median and quartiles) or quantiles (ranks, spread evenly with mean 0 and deviation 1)",
        choices=NORMALISERS,
    )
    patch: int | str = option(
        1,
        "how many neighbouring steps become one, side by side as features; auto: as many as leave about 75"
        " steps of sequences with more than 300",
        low=1,
        expects=PATCHES,
    )
    window: int | str | None = option(
        None,
        "length of the windows to cut from longer recordings: a number of steps, or a duration such as 2.5s;"
        " null: each recording is a sequence",
        low=1,
        expects=SIZES,
    )
    step: int | str | None = option(
        None,
        "distance between the beginnings of two windows, in steps or as a duration; null: the length of a"
        " window, so that none overlap",
        low=1,
        expects=SIZES,
    )
    window_label: str = option(
        "majority",
        "the label of a window whose steps have several: that of most; pure: none, it is left out; last: that"
        " of the last step",
        choices=LABELS,
    )
    block: int | str | None = option(
        None,
        "cut recordings into blocks of this many steps, or of this duration, each of which is a recording of"
        " its own, so that a single recording can be divided into splits",
        low=1,
        expects=SIZES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("window", "step", "block"):
            value = getattr(self, key)
            check_size(f"dataset.{key}", value)
            if value is not None and self.window is None:
                raise ConfigError(f"dataset.{key} has no effect without dataset.window: set that, too.")
        if isinstance(self.patch, str) and self.patch != "auto":
            raise ConfigError(f"dataset.patch must be {PATCHES}, got '{self.patch}'.")
        # absolute, so that a checkpoint finds its data whatever the current folder
        self.path, self.test_path = _absolute(self.path), _absolute(self.test_path)

    def cut(self, recordings: Recordings) -> Recordings:
        if self.window is None:
            return recordings
        return Windows(self.window, self.step, self.window_label, self.block).cut(recordings)

    def reading(self) -> dict[str, Any]:
        return super().reading() if self.window is None else {**super().reading(), "window": self.window}

    def patch_for(self, recordings: Recordings, train: Array) -> int:
        import numpy as np

        if not isinstance(self.patch, str):
            return self.patch
        steps = int(np.median(recordings.lengths_N[train]))
        return math.ceil(steps / LEFT) if steps > LONG else 1

    def settled_options(self, preparation: Preparation) -> dict[str, Any]:
        return {**super().settled_options(preparation), "patch": preparation.patch}

    @classmethod
    def takes(cls, path: Path) -> bool:
        """Whether an existing path looks like data for this source, judged by names only."""
        return False

    def title(self) -> str:
        return self.name if self.path is None else Path(self.path).name

    def title_of(self, split: str) -> str:
        if self.test_path is None or split not in ("test", "all"):
            return self.title()
        test = Path(self.test_path).name
        return test if split == "test" else f"{self.title()} and {test}"

    def paths(self) -> list[Path]:
        """The path of the data and, if given, the path of the test split. Raises ConfigError."""
        if self.path is None:
            raise ConfigError(f"dataset={self.name} needs dataset.path=…, the file or folder of your data.")
        return [Path(self.path), *([Path(self.test_path)] if self.test_path else [])]


def _absolute(path: str | None) -> str | None:
    return None if path is None else absolute(path)
