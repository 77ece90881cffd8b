"""What belongs to whole sequences: ids, labels, groups, splits. Torch-free.

Shapes: R rows of a block, N sequences, K names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array, encoded
from rnnclf.data.splits import SPLITS
from rnnclf.data.table.blocks import Block, TableFile
from rnnclf.data.table.cells import names, short
from rnnclf.data.table.roles import Roles
from rnnclf.data.table.store import Texts
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TEST = SPLITS.index("test")
SPLIT_WORDS = {
    word: place
    for place, words in enumerate(
        (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing"))
    )
    for word in words
}


class Names:
    """Texts by number, in the order in which they first came."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, number: int) -> str:
        return list(self._numbers)[number]

    def of(self, texts: pl.Series) -> Array:
        """The numbers of some texts, int64; new ones are given to those that are new."""
        import numpy as np
        import polars as pl

        different = texts.unique(maintain_order=True)
        numbers_K = [self._numbers.setdefault(text, len(self._numbers)) for text in different]
        places_R = texts.cast(pl.Enum(different)).to_physical().to_numpy()
        numbers_R: Array = np.array(numbers_K, np.int64)[places_R]
        return numbers_R


class Register:
    """The sequences of all files in the order in which they first came, and what is the same in all
    their rows: label, group, split."""

    def __init__(self, roles: Roles) -> None:
        import numpy as np

        self.roles = roles
        same = {"label": roles.label, "group": roles.group, "split": roles.split}
        self.columns = {role: column for role, column in same.items() if column is not None}
        self.names = {role: Names() for role in self.columns}
        self.numbers_N = {role: np.zeros(0, np.int64) for role in self.columns}
        self.lines_N = np.zeros(0, np.int64)
        self.files: list[tuple[str, str]] = []
        self.firsts: list[int] = []
        """The first sequence of each file."""
        self.ids: list[Names] = []

    def __len__(self) -> int:
        return len(self.lines_N)

    def begin(self, table: TableFile) -> None:
        self.files.append((table.name, table.unit))
        self.firsts.append(len(self))
        self.ids.append(Names())

    def enter(self, block: Block) -> Array:
        """The sequence of each row, int64 (R,).

        Raises DataError where rows of one id contradict each other or, with a row for each sequence, an
        id comes twice.
        """
        import numpy as np

        known, rows = len(self), len(block.lines_R)
        if self.roles.id is None:
            sequence_R = known + np.arange(rows)
        else:
            sequence_R = self.firsts[-1] + self.ids[-1].of(names(block, self.roles.id))
        found, first = np.unique(sequence_R, return_index=True)
        new = first[found >= known]
        self.lines_N = np.append(self.lines_N, block.lines_R[new])
        if self.roles.form == "wide" and len(new) < rows:
            self._refuse_repeated(block, sequence_R, new)
        for role, column in self.columns.items():
            numbers_R = self.names[role].of(names(block, column))
            self.numbers_N[role] = np.append(self.numbers_N[role], numbers_R[new])
            differs_R = numbers_R != self.numbers_N[role][sequence_R]
            if differs_R.any():
                row = int(differs_R.argmax())
                self._refuse_second(block, row, int(sequence_R[row]), role, int(numbers_R[row]))
        return sequence_R

    def _refuse_second(self, block: Block, row: int, n: int, role: str, number: int) -> None:
        second, first = (short(self.names[role][place]) for place in (number, int(self.numbers_N[role][n])))
        hint = (
            f" Where '{self.columns[role]}' is something else: dataset.group=none." if role == "group" else ""
        )
        raise DataError(
            f"{block.place(row)}: the {role} of {self.roles.id} '{self._id(n)}' is '{second}', and in"
            f" {block.unit} {self.lines_N[n]} it is '{first}': a sequence has one {role}.{hint}"
        )

    def _refuse_repeated(self, block: Block, sequence_R: Array, new: Array) -> None:
        import numpy as np

        repeated_R = np.ones(len(sequence_R), bool)
        repeated_R[new] = False
        row = int(repeated_R.argmax())
        n = int(sequence_R[row])
        raise DataError(
            f"{block.place(row)}: {self.roles.id} '{self._id(n)}' is in {block.unit} {self.lines_N[n]}, too,"
            " where each row is a sequence. Is each row a step? dataset.form=long."
        )

    def _id(self, n: int) -> str:
        return short(self.ids[-1][n - self.firsts[-1]])

    def place(self, n: int) -> str:
        """Where sequence n begins."""
        name, unit = self.file_of(n)
        return f"{name}, {unit} {self.lines_N[n]}"

    def order(self) -> Array:
        """The sequences as they are kept, int64 (N,): file by file, and by id with a row for each step."""
        import numpy as np

        if self.roles.form == "wide":
            return np.arange(len(self))
        parts = [
            first + np.argsort(encoded(ids)[0]) for first, ids in zip(self.firsts, self.ids, strict=True)
        ]
        return np.concatenate(parts)

    def file_of(self, n: int) -> tuple[str, str]:
        """The name of the file of sequence n, and what its rows are called."""
        return self.files[sum(n >= first for first in self.firsts) - 1]

    def files_with_steps(self, lengths_N: Array) -> list[tuple[str, str, int]]:
        """The files with the number of their steps."""
        bounds = zip(self.files, self.firsts, [*self.firsts[1:], len(self)], strict=True)
        return [(*file, int(lengths_N[first:end].sum())) for file, first, end in bounds]

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes labels, groups and splits, and returns the classes. Raises DataError where a split is no
        split, or a class is tested that is never trained."""
        import numpy as np

        order = self.order()
        if self.roles.id is not None:
            every = [id_ for ids in self.ids for id_ in ids]
            texts = Texts.of(every[n] for n in order.tolist())
            np.save(folder / "ids_bytes.npy", texts.bytes_B)
            np.save(folder / "ids_ends.npy", texts.end_N)
        places_K, classes = encoded(self.names["label"])
        labels_N = places_K[self.numbers_N["label"]]
        np.save(folder / "labels_N.npy", labels_N[order])
        if "group" in self.names:
            np.save(folder / "groups_N.npy", encoded(self.names["group"])[0][self.numbers_N["group"]][order])
        given_N = self._given()
        if (given_N >= 0).any():
            self._refuse_unseen(labels_N, given_N, classes)
            np.save(folder / "given_N.npy", given_N[order])
        return classes

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
                    f"{self.place(n)}, column '{self.columns['split']}': '{short(word)}' is no split; it must"
                    " be train, validation or test. Where the column means something else:"
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
                f"{self.place(n)}: class '{classes[labels_N[n]]}' is in the test split only, where a model"
                " cannot have learned it."
            )
