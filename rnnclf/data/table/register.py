"""Collects ids, labels, groups and splits of the sequences in a table. Torch-free.

Shapes: R rows of a block, N sequences, K names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.recordings import NO_LABELS, Array, encoded
from rnnclf.data.splits import SPLITS
from rnnclf.data.table.blocks import Block, TableFile
from rnnclf.data.table.cells import names, optional_names, short
from rnnclf.data.table.roles import Roles
from rnnclf.data.table.store import Texts
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

ROWS = 2**20  # rows to look at together
TEST = SPLITS.index("test")
MOST_TRUTHS = 100_000  # different labels of a table that needs none: more are not kept
NO_TRUTH, SEVERAL = -1, -2  # instead of the number of a label
SPLIT_WORDS = {
    word: place
    for place, words in enumerate(
        (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing"))
    )
    for word in words
}


class NameIndex:
    """Numbers names in the order in which they first occur."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, number: int) -> str:
        return list(self._numbers)[number]

    def of(self, texts: pl.Series) -> Array:
        """The numbers of the texts, int64; unknown texts get new numbers, and null gets -1."""
        import numpy as np
        import polars as pl

        if texts.null_count():
            given_R = texts.is_not_null().to_numpy()
            with_gaps_R = np.full(len(texts), -1, np.int64)
            if given_R.any():
                with_gaps_R[given_R] = self.of(texts.drop_nulls())
            return with_gaps_R
        different = texts.unique(maintain_order=True)
        numbers_K = [self._numbers.setdefault(text, len(self._numbers)) for text in different]
        places_R = texts.cast(pl.Enum(different)).to_physical().to_numpy()
        numbers_R: Array = np.array(numbers_K, np.int64)[places_R]
        return numbers_R


def id_names(block: Block, roles: Roles) -> pl.Series:
    """The id of each row; the parts of an id of several columns are joined by a slash, as in s1/3.

    The only recording of a file is called by the name of the file.
    """
    import polars as pl

    if not roles.id:
        return pl.repeat(block.name.split(".")[0], len(block.lines_R), eager=True)
    parts = [names(block, column, roles.missing) for column in roles.id]
    if len(parts) == 1:
        return parts[0]
    # a/b and c give another id than a and b/c
    whole, *rest = (part.str.replace_all(r"([\\/])", r"\$1") for part in parts)
    for part in rest:
        whole = whole + "/" + part
    return whole


class SequenceRegister:
    """All sequences in order of first occurrence, with what all rows of a sequence share.

    These are the label, unless it may change from row to row, the group and the split.
    """

    def __init__(self, roles: Roles) -> None:
        import numpy as np

        self.roles = roles
        shared = {"label": roles.label, "group": roles.group, "split": roles.split}
        if roles.row_labels:
            del shared["label"]
        self.columns = {role: column for role, column in shared.items() if column is not None}
        self.names = {role: NameIndex() for role in (*self.columns, "label")}
        self.numbers_N = {role: np.zeros(0, np.int64) for role in self.columns}
        self.lines_N = np.zeros(0, np.int64)
        self.files: list[tuple[str, str]] = []
        self.firsts: list[int] = []
        """The index of the first sequence of each file."""
        self.ids: list[NameIndex] = []
        self.row_is_sequence = False
        self.truths = NameIndex()
        self.truth_N = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.lines_N)

    @property
    def named(self) -> bool:
        """Whether sequences have ids of their own."""
        return bool(self.roles.id) or self.roles.form == "long"

    def labels(self, block: Block) -> Array:
        """The numbers of the labels of the rows of a block, int64 (R,); -1 where there is none."""
        assert self.roles.label is not None
        return self.names["label"].of(names(block, self.roles.label, self.roles.missing, optional=True))

    def begin(self, table: TableFile) -> None:
        self.files.append((table.name, table.unit))
        self.firsts.append(len(self))
        self.ids.append(NameIndex())
        self.row_is_sequence = table.row_is_sequence

    def enter(self, block: Block) -> Array:
        """Registers the rows of a block; returns the index of each row's sequence, int64 (R,).

        Raises DataError if rows of one id contradict each other or, with one row per sequence, an id occurs
        twice.
        """
        import numpy as np

        known, rows = len(self), len(block.lines_R)
        if not self.named:
            sequence_R = known + np.arange(rows)
        else:
            sequence_R = self.firsts[-1] + self.ids[-1].of(id_names(block, self.roles))
        found, first = np.unique(sequence_R, return_index=True)
        new = first[found >= known]
        self.lines_N = np.append(self.lines_N, block.lines_R[new])
        if self.roles.form == "wide" and len(new) < rows:
            self._refuse_repeated(block, sequence_R, new)
        if self.row_is_sequence:
            self._refuse_joined(block, sequence_R)
        self._note_truth(block, sequence_R, len(new))
        for role, column in self.columns.items():
            numbers_R = self.names[role].of(names(block, column, self.roles.missing))
            self.numbers_N[role] = np.append(self.numbers_N[role], numbers_R[new])
            differs_R = numbers_R != self.numbers_N[role][sequence_R]
            if differs_R.any():
                row = int(differs_R.argmax())
                self._refuse_contradiction(block, row, int(sequence_R[row]), role, int(numbers_R[row]))
        return sequence_R

    def _note_truth(self, block: Block, sequence_R: Array, new: int) -> None:
        """Keeps the label of each sequence where its rows agree; nothing about it is an error."""
        import numpy as np

        if self.roles.truth is None or len(self.truths) > MOST_TRUTHS:
            return
        self.truth_N = np.append(self.truth_N, np.full(new, NO_TRUTH))
        numbers_R = self.truths.of(optional_names(block, self.roles.truth, self.roles.missing))
        given_R = numbers_R >= 0
        sequence_r, number_r = sequence_R[given_R], numbers_R[given_R]
        open_r = self.truth_N[sequence_r] == NO_TRUTH
        self.truth_N[sequence_r[open_r]] = number_r[open_r]
        self.truth_N[sequence_r[self.truth_N[sequence_r] != number_r]] = SEVERAL

    def truth(self) -> list[str | None]:
        """The label of each sequence, in their order, None where there is none; [] if none has one."""
        if len(self.truth_N) < len(self) or not (self.truth_N >= 0).any():
            return []
        known = [*self.truths]
        return [known[n] if n >= 0 else None for n in self.truth_N[self.order()].tolist()]

    def _refuse_contradiction(self, block: Block, row: int, n: int, role: str, number: int) -> None:
        second, first = (short(self.names[role][place]) for place in (number, int(self.numbers_N[role][n])))
        hint = {
            "group": f" If '{self.columns[role]}' is not a group: dataset.group=none.",
            "label": " Set dataset.window=128 to cut it into windows of so many steps.",
        }.get(role, "")
        raise DataError(
            f"{block.place(row)}: the {role} of {self.roles.id_words} '{self._id(n)}' is '{second}', but in"
            f" {block.unit} {self.lines_N[n]} it is '{first}': a sequence can have only one {role}.{hint}"
        )

    def _refuse_repeated(self, block: Block, sequence_R: Array, new: Array) -> None:
        import numpy as np

        repeated_R = np.ones(len(sequence_R), bool)
        repeated_R[new] = False
        row = int(repeated_R.argmax())
        n = int(sequence_R[row])
        raise DataError(
            f"{block.place(row)}: {self.roles.id_words} '{self._id(n)}' is also in {block.unit}"
            f" {self.lines_N[n]}, but each row is a sequence. If each row is a step, set dataset.form=long."
        )

    def _refuse_joined(self, block: Block, sequence_R: Array) -> None:
        """Raises DataError if two rows of a file, each of which is a sequence, have the same id."""
        joined_R = block.lines_R != self.lines_N[sequence_R]
        if joined_R.any():
            row = int(joined_R.argmax())
            n = int(sequence_R[row])
            raise DataError(
                f"{block.place(row)}: {self.roles.id_words} '{self._id(n)}' is also in {block.unit}"
                f" {self.lines_N[n]}, but each {block.unit} is a sequence."
            )

    def _id(self, n: int) -> str:
        return short(self.ids[-1][n - self.firsts[-1]])

    def place(self, n: int) -> str:
        """The file and line where sequence n begins."""
        name, unit = self.file_of(n)
        return f"{name}, {unit} {self.lines_N[n]}"

    def order(self) -> Array:
        """The order in which sequences are stored, int64 (N,): by file and, with one row per step, by id.

        Without labels, it is that in which they first come.
        """
        import numpy as np

        if self.roles.form == "wide" or self.roles.label is None:
            return np.arange(len(self))
        parts = [
            first + np.argsort(encoded(ids)[0]) for first, ids in zip(self.firsts, self.ids, strict=True)
        ]
        return np.concatenate(parts)

    def file_of(self, n: int) -> tuple[str, str]:
        """The name of the file of sequence n, and the word for its rows."""
        return self.files[sum(n >= first for first in self.firsts) - 1]

    def files_with_steps(self, lengths_N: Array) -> list[tuple[str, str, int]]:
        """The files, each with its number of steps."""
        bounds = zip(self.files, self.firsts, [*self.firsts[1:], len(self)], strict=True)
        return [(*file, int(lengths_N[first:end].sum())) for file, first, end in bounds]

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes labels, groups and splits; returns the class names.

        Raises DataError for an unknown split, and for a class that occurs in the test split only.
        """
        import numpy as np

        order = self.order()
        if self.named:
            every = [id_ for ids in self.ids for id_ in ids]
            texts = Texts.of(every[n] for n in order.tolist())
            np.save(folder / "ids_bytes.npy", texts.bytes_B)
            np.save(folder / "ids_ends.npy", texts.end_N)
        places_K, classes = encoded(self.names["label"])
        if self.roles.label is None:
            labels_N, classes = np.zeros(len(self), np.int64), NO_LABELS
        elif self.roles.row_labels:
            self._save_row_labels(folder, places_K)
            labels_N = np.zeros(len(self), np.int64)
        else:
            labels_N = places_K[self.numbers_N["label"]]
        np.save(folder / "labels_N.npy", labels_N[order])
        if "group" in self.names:
            np.save(folder / "groups_N.npy", encoded(self.names["group"])[0][self.numbers_N["group"]][order])
        given_N = self._given()
        if (given_N >= 0).any():
            self._refuse_unseen(labels_N, given_N, classes)
            np.save(folder / "given_N.npy", given_N[order])
        return classes

    def _save_row_labels(self, folder: Path, places_K: Array) -> None:
        """Replaces the numbers of labels by those of the classes. Raises DataError if no row has a label."""
        import numpy as np

        if not len(places_K):
            raise DataError(
                f"{self.files[0][0]}: no row has a value in column '{self.roles.label}', the label."
            )
        labels_S = np.load(folder / "labels_S.npy", mmap_mode="r+")
        with_none = np.append(places_K, -1)
        for begin in range(0, len(labels_S), ROWS):
            part = slice(begin, begin + ROWS)
            labels_S[part] = with_none[labels_S[part]]
        labels_S.flush()

    def _given(self) -> Array:
        import numpy as np

        given_N = np.full(len(self), -1, np.int8)
        if "split" in self.names:
            places_K = np.array([SPLIT_WORDS.get(name.lower(), -1) for name in self.names["split"]], np.int8)
            given_N = places_K[self.numbers_N["split"]]
            if (given_N < 0).any():
                n = int((given_N < 0).argmax())
                word = self.names["split"][int(self.numbers_N["split"][n])]
                raise DataError(
                    f"{self.place(n)}, column '{self.columns['split']}': '{short(word)}' is not a split; it"
                    " must be train, validation or test. If the column means something else:"
                    " dataset.split_column=none."
                )
        for first in self.firsts[1:]:
            given_N[first:] = TEST
        return given_N

    def _refuse_unseen(self, labels_N: Array, given_N: Array, classes: tuple[str, ...]) -> None:
        import numpy as np

        trained = labels_N[given_N <= SPLITS.index("train")]
        unseen_N = (given_N == TEST) & ~np.isin(labels_N, trained)
        if unseen_N.any():
            n = int(unseen_N.argmax())
            raise DataError(
                f"{self.place(n)}: class '{classes[labels_N[n]]}' occurs in the test split only: there is"
                " nothing to train on."
            )
