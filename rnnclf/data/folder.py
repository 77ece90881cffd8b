"""The user's own folders: one folder per class, one file per sequence.

Shapes: T steps of a file, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rnnclf.data.cache import folder_for, identity
from rnnclf.data.changes import refuse_changed
from rnnclf.data.channel_files import channel_folders, sequences_of
from rnnclf.data.class_folders import (
    Entry,
    NoGroupError,
    find_entries,
    labelled_entries,
    pattern_of,
    unlabelled_entries,
)
from rnnclf.data.conversion import Part, cached, combine
from rnnclf.data.delimited import excerpt
from rnnclf.data.npy import refuse_more_than_memory
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Progress, Recordings, numbered, silent
from rnnclf.data.sequence_files import TEXT, UNNAMED, Contents, contents_of, ordered_as
from rnnclf.data.splits import SPLITS
from rnnclf.errors import ConfigError, DataError
from rnnclf.files import absolute
from rnnclf.options import option
from rnnclf.registry import did_you_mean
from rnnclf.system import helper

if TYPE_CHECKING:
    from rnnclf.data.base import Learned

READING = 2  # counts the ways in which files were read; what was read in another way is read again
COPIES = 2  # of the arrays in memory while they are joined
TIMES = ("time", "t", "timestamp")  # names of time columns, in lower case
RISING = ("datetime", "date", "ts", "elapsed", "seconds", "time_s", "time_ms", "time_us", "time_ns")
"""Names of time columns if the values rise."""
FEW = 20  # steps; a channel may rise by one that often by chance


@dataclass
class Folder(OwnData):
    """Your own folder, with one folder per class and in it one file per sequence.

    Text files (.csv, .tsv, .txt) have a line per step and a column per channel, with or without a header; so
    have tables (.xlsx, .parquet, .feather, .jsonl). .npy files hold an array (T,) or (T, C), .wav files
    sound. To define the splits, put the class folders into folders named train, validation and test (or
    training, val, valid, dev, testing). If the files of all classes lie together, dataset.labels names a
    table of their classes. A folder such as UCI HAR has a file per channel, a line per sequence, and y.txt.
    """

    LOCATIONS: ClassVar[tuple[str, ...]] = ("path", "test_path", "labels")
    READS: ClassVar[str] = "folders with a folder for each class or a file for each channel"

    name: str = "folder"
    time: str | None = option(
        None, f"the column with the time of each step; null: one named {', '.join(TIMES)}, if there is one"
    )
    labels: str | None = option(
        None,
        "a table with the class of each file, by columns called file and label; null: the class is the name"
        " of the file's folder",
        path=True,
    )
    group: str | None = option(
        None,
        "a regular expression with one (group), searched in each file's path below its class folder, such as"
        " '(p[0-9]+)_' for patients: sequences with the same match stay in one split",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = absolute(self.labels)
        if self.group is not None:
            pattern_of(self.group)

    @classmethod
    def takes(cls, path: Path) -> bool:
        return path.is_dir()

    def read(self, progress: Progress = silent) -> Recordings:
        return self._recordings((), progress)

    def _by_channel(self, progress: Progress) -> Recordings | None:
        """The sequences of a folder with a file for each channel; None if it is another kind of folder."""
        root, *test = self.paths()
        folders = channel_folders(root) if self.labels is None else []
        if not folders:
            return None
        if test:
            if any(folder.given >= 0 for folder in folders):
                raise ConfigError(f"{root} already has folders for its splits: leave out dataset.test_path.")
            folders += channel_folders(test[0], SPLITS.index("test"))
        versions = [identity(file) for folder in folders for file in folder.files]

        def read() -> Recordings:
            recordings = combine(*sequences_of(root, folders, progress))
            refuse_changed(versions)
            return recordings

        return cached(folder_for("channels", READING, str(root), versions), read)

    def _recordings(self, known: tuple[str, ...], progress: Progress) -> Recordings:
        """All sequences; a channel is kept in any case if it is `known` to a model. Raises DataError."""
        if (by_channel := self._by_channel(progress)) is not None:
            return by_channel
        entries, notes = self._entries()
        size = sum(entry.path.stat().st_size for entry in entries if entry.path.suffix.lower() not in TEXT)
        refuse_more_than_memory(
            COPIES * size, self.title(), ": save all sequences as one x.npy, which may be larger than memory"
        )
        versions = [identity(entry.path) for entry in entries]
        facts = [(*entry[1:], v) for entry, v in zip(entries, versions, strict=True)]
        folder = folder_for("folders", READING, self.time, self.group, known, facts)

        def read() -> Recordings:
            recordings = self._read(entries, notes, known, progress)
            refuse_changed(versions)
            return recordings

        return cached(folder, read)

    def read_for_model(
        self, channels: tuple[str, ...], progress: Progress = silent, names: tuple[str, ...] = ()
    ) -> Recordings:
        try:
            return self._recordings(channels, progress)
        except NoGroupError as error:  # a split needs groups, a model does not
            recordings = replace(self, group=None)._recordings(channels, progress)
            return replace(recordings, notes=(*recordings.notes, f"{error} Sequences are not grouped."))

    def read_unlabelled(
        self, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        root, others = self.paths()[0], list[Path]()
        entries = unlabelled_entries(root, others)
        size = sum(entry.path.stat().st_size for entry in entries if entry.path.suffix.lower() not in TEXT)
        refuse_more_than_memory(COPIES * size, self.title())
        versions = [identity(entry.path) for entry in entries]
        notes = [_left_out(root, others, "sequence files")] if others else []
        recordings = self._read(entries, notes, learned.preparation.channels, progress, lenient)
        refuse_changed(versions)
        return recordings

    def _entries(self) -> tuple[list[Entry], list[str]]:
        """All sequence files, sorted, and a note on other files. Raises ConfigError or DataError."""
        root, *test = self.paths()
        if test and self.labels is not None:
            raise ConfigError(
                "dataset.labels and dataset.test_path do not go together: put the files into folders named"
                " train and test."
            )
        others: list[Path] = []
        found = list(self._found(root, others))
        if test:
            if any(entry.given >= 0 for entry in found):
                raise ConfigError(f"{root} already has folders for its splits: leave out dataset.test_path.")
            more = list(self._found(test[0], others))
            if any(entry.given >= 0 for entry in more):
                raise DataError(
                    f"{test[0]} is the test split: it must hold class folders, not folders for splits."
                )
            place = SPLITS.index("test")
            found += [entry._replace(place=f"{test[0].name}/{entry.place}", given=place) for entry in more]
        if not others:
            return found, []
        what = "sequence files" if self.labels is None else f"in {Path(self.labels).name}"
        return found, [_left_out(root, others, what)]

    def _found(self, root: Path, others: list[Path]) -> Iterator[Entry]:
        if self.labels is None:
            return find_entries(root, self.group, others)
        table = Path(self.labels)
        if not table.exists() and (root / table.name).is_file():  # written as seen from the folder
            table = root / table.name
        return labelled_entries(root, table, self.group, others)

    def _read(
        self,
        entries: Sequence[Entry],
        notes: list[str],
        known: tuple[str, ...],
        progress: Progress,
        lenient: bool = False,
    ) -> Recordings:
        """The sequences of these files; if `lenient`, one that cannot be read becomes an infinite step."""
        contents: list[Contents] = []
        bad: list[Entry] = []
        with helper.kept():
            for number, entry in enumerate(entries, start=1):
                path, place, *_ = entry
                try:
                    now = contents_of(path, place)
                    if contents:
                        now = ordered_as(contents[0], now, entries[0].place, place)
                    contents.append(now)
                except DataError:
                    if not lenient:
                        raise
                    bad.append(entry)
                progress(f"reading {self.title()}", number / len(entries))
        if bad and not contents:
            raise DataError(f"No file of {self.title()} can be read.")
        contents, entries = _with_bad(contents, [e for e in entries if e not in bad], bad)
        _refuse_rates(contents, entries)
        first = contents[0]
        names = first.names or numbered(first.values_TC.shape[1])
        time = self._time(contents, known, notes)
        kept = _without_counters(contents, names, time, known, notes)
        if UNNAMED in kept and UNNAMED not in known and first.unnamed:
            raise DataError(
                f"{entries[0].place}, line 1: column 1 has no name. If it is a time, name it; if it holds the"
                " numbers of rows, remove it (pandas: to_csv(…, index=False))."
            )
        if not kept:
            raise DataError(f"The files have no columns besides the time, '{names[0]}'.")
        columns = [names.index(name) for name in kept]
        parts = [_part(entry, own, time, columns) for entry, own in zip(entries, contents, strict=True)]
        return combine(parts, kept, notes)

    def _time(self, contents: Sequence[Contents], known: tuple[str, ...], notes: list[str]) -> int | None:
        """The index of the time column, None without one. Raises ConfigError."""
        first, names = contents[0], contents[0].names
        if self.time is not None:
            if names is None:
                raise ConfigError(f"dataset.time={self.time} needs files with a header of column names.")
            if self.time not in names:
                hint = did_you_mean(self.time, names)
                raise ConfigError(f"dataset.time: no column is named '{self.time}'.{hint} {_listed(names)}")
            return names.index(self.time)
        if names is None or len(names) == 1:
            return None
        free = [name for name in names if name not in known]
        likely = [name for name in free if name in first.dates or name.lower() in TIMES]
        likely = likely or [
            name for name in free if name.lower() in RISING and all(_rises(own, name) for own in contents)
        ]
        if len(likely) > 1:
            raise ConfigError(f"{' and '.join(likely)} could each be the time: choose one with dataset.time.")
        if not likely:
            return None
        notes.append(f"{_called(first, likely[0])} is used as the time of each step.")
        return names.index(likely[0])


def _with_bad(
    contents: list[Contents], good: Sequence[Entry], bad: Sequence[Entry]
) -> tuple[list[Contents], Sequence[Entry]]:
    """The contents of all files, sorted by path: one infinite step of those that cannot be read."""
    import numpy as np

    if not bad:
        return contents, good
    unread = contents[0]._replace(values_TC=np.full((1, contents[0].values_TC.shape[1]), np.inf))
    pairs = [*zip(good, contents, strict=True), *((entry, unread) for entry in bad)]
    pairs.sort(key=lambda pair: pair[0].path)
    return [content for _, content in pairs], [entry for entry, _ in pairs]


def _left_out(root: Path, others: Sequence[Path], what: str) -> str:
    """A note on files that are not read."""
    kinds = Counter(path.suffix or "no suffix" for path in others).most_common(5)
    listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
    return f"{len(others):,} files in {root} are not {what} and were ignored ({listed})."


def _called(contents: Contents, name: str) -> str:
    """The column as messages call it."""
    unnamed = contents.unnamed and name == UNNAMED
    return "The first column, which has no name," if unnamed else f"Column '{name}'"


def _rises(contents: Contents, name: str) -> bool:
    """Whether each value of the column is larger than the one before."""
    import numpy as np

    assert contents.names is not None
    values_T = contents.values_TC[:, contents.names.index(name)]
    return bool((np.diff(values_T) > 0).all())


def _without_counters(
    contents: Sequence[Contents],
    names: tuple[str, ...],
    time: int | None,
    known: tuple[str, ...],
    notes: list[str],
) -> tuple[str, ...]:
    """The names of the channels: all but the time, and but what counts the steps or the rows of a table.

    Such a column says nothing of the sequence, but where the rows of one large table were counted it tells
    the files apart. One that a model knows is kept.
    """
    kept = [name for column, name in enumerate(names) if column != time]
    for name in list(kept):
        column = names.index(name)
        unnamed = contents[0].unnamed and name == UNNAMED
        if name not in known and len(kept) > 1 and _counts(contents, column, 0 if unnamed else FEW):
            kept.remove(name)
            notes.append(f"{_called(contents[0], name)} counts the rows and was left out.")
    return tuple(kept)


def _counts(contents: Sequence[Contents], column: int, least: int) -> bool:
    """Whether a column of whole numbers rises by one at each step of all files, `least` times or more."""
    import numpy as np

    steps = 0
    for own in contents:
        values_T = own.values_TC[:, column].astype(np.float64)
        if (np.diff(values_T) != 1).any() or values_T[0] != np.floor(values_T[0]):
            return False
        steps += len(values_T) - 1
    return steps >= least


def _refuse_rates(contents: Sequence[Contents], entries: Sequence[Entry]) -> None:
    """Raises DataError for sounds whose steps do not last equally long."""
    for own, entry in zip(contents, entries, strict=True):
        if own.rate != contents[0].rate:
            said = [
                "no rate of samples" if rate is None else f"{rate:,} samples per second"
                for rate in (own.rate, contents[0].rate)
            ]
            raise DataError(
                f"{entry.place} has {said[0]}, but {entries[0].place} has {said[1]}: all files need the same."
            )


def _part(entry: Entry, contents: Contents, time: int | None, columns: list[int]) -> Part:
    """The sequence of a file, with these columns as channels. Raises DataError if its time does not rise."""
    import numpy as np

    values_TC, line = contents.values_TC, contents.line
    times_T = None
    if time is not None:
        times_T = np.ascontiguousarray(values_TC[:, time], np.float64)
        rising = np.concatenate((~np.isnan(times_T[:1]), times_T[1:] > times_T[:-1]))
        if not rising.all():
            step = int(rising.argmin())
            raise DataError(
                f"{entry.place}, line {line + step}: the time is {times_T[step]:.15g};"
                " times must not be missing and must increase from step to step."
            )
    if len(columns) < values_TC.shape[1]:
        values_TC = values_TC[:, columns]
    return Part(values_TC, entry.label, entry.place, line, times_T, entry.group, entry.given)


def _listed(names: tuple[str, ...]) -> str:
    return f"The columns are: {excerpt(', '.join(names), 200)}."
