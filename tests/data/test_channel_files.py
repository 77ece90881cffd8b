"""Folders with a file for each channel, as that of UCI HAR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rnnclf.data.folder import Folder
from rnnclf.data.recognition import source_for
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError

STEPS, CHANNELS = 8, ("body_acc_x", "body_acc_y", "total_acc_x")
LABELS = {"train": [1, 2, 1, 2, 1], "test": [2, 1, 2]}
PEOPLE = {"train": [1, 1, 3, 3, 3], "test": [2, 2, 2]}
NAMES = {1: "WALKING", 2: "SITTING"}


def values_of(split: str) -> np.ndarray:
    """The values (N, T, C) of a split."""
    rng = np.random.default_rng(len(split))
    return rng.normal(size=(len(LABELS[split]), STEPS, len(CHANNELS))).round(6)


def lines(rows: object) -> str:
    """Rows as in the archive: numbers in columns of a fixed width, with spaces before them."""
    return "".join("".join(f"{value:16.7e}" for value in row) + "\n" for row in rows)


@pytest.fixture
def har(tmp_path: Path) -> Path:
    """A small folder in the form of https://archive.ics.uci.edu/dataset/240."""
    root = tmp_path / "UCI HAR Dataset"
    for split in ("train", "test"):
        signals = root / split / "Inertial Signals"
        signals.mkdir(parents=True)
        for c, name in enumerate(CHANNELS):
            (signals / f"{name}_{split}.txt").write_text(lines(values_of(split)[:, :, c]))
        (root / split / f"X_{split}.txt").write_text(lines(np.ones((len(LABELS[split]), 3))))
        (root / split / f"y_{split}.txt").write_text("".join(f"{label}\n" for label in LABELS[split]))
        (root / split / f"subject_{split}.txt").write_text("".join(f"{who}\n" for who in PEOPLE[split]))
    (root / "activity_labels.txt").write_text("".join(f"{n} {name}\n" for n, name in NAMES.items()))
    (root / "features.txt").write_text("1 mean\n2 std\n3 max\n")
    (root / "README.txt").write_text("Human Activity Recognition\n")
    return root


def read(root: Path, **options: object) -> Recordings:
    return Folder(path=str(root), **options).read()


def test_each_row_is_a_sequence_and_each_file_a_channel(har):
    assert source_for(str(har)) == "folder"
    recordings = read(har)
    assert recordings.channels == CHANNELS
    expected = np.concatenate([values_of("train"), values_of("test")]).reshape(-1, len(CHANNELS))
    np.testing.assert_allclose(recordings.values_SC, expected, atol=1e-6)
    assert recordings.lengths_N.tolist() == [STEPS] * 8
    assert [recordings.classes[label] for label in recordings.labels_N] == [
        NAMES[label] for label in (*LABELS["train"], *LABELS["test"])
    ]
    assert recordings.given_N.tolist() == [0] * 5 + [2] * 3
    assert recordings.groups_N.tolist() == [0, 0, 2, 2, 2, 1, 1, 1]
    assert recordings.notes == (
        "UCI HAR Dataset has a file for each channel; train/y_train.txt has the class of each row, and"
        " train/subject_train.txt its group.",
        "train/X_train.txt holds computed features and was left out.",
        "test/X_test.txt holds computed features and was left out.",
    )
    assert recordings.place(STEPS + 2) == "train/y_train.txt, line 2, step 2 (counted from 0)"


def test_a_folder_without_splits_is_read_and_another_one_is_its_test_split(har):
    recordings = read(har / "train", test_path=str(har / "test"))
    assert recordings.given_N.tolist() == [-1] * 5 + [2] * 3
    assert recordings.classes == ("1", "2")
    with pytest.raises(
        ConfigError, match=r"already has folders for its splits: leave out dataset\.test_path"
    ):
        read(har, test_path=str(har / "test"))


def test_one_file_of_sequences_beside_their_labels_is_one_channel(tmp_path):
    (tmp_path / "X_train.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "y_train.csv").write_text("walk\nrun\n")
    recordings = read(tmp_path)
    assert recordings.channels == ("X",)
    assert recordings.values_SC.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert recordings.classes == ("run", "walk")


SIGNAL = "train/Inertial Signals/body_acc_y_train.txt"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (SIGNAL, lines(np.ones((4, STEPS))), "body_acc_y_train.txt has 4 rows, but y_train.txt has 5: each"),
        (SIGNAL, lines(np.ones((5, 7))), "body_acc_y_train.txt has 7 values in each row, body_acc_x_train"),
        (SIGNAL, "1 2\n3\n", "body_acc_y_train.txt, line 2 has 1 fields, line 1 has 2"),
        (SIGNAL, "1 x\n", "body_acc_y_train.txt, line 1, column 2: 'x' is not a number"),
        (SIGNAL, None, "has the files body_acc_x_test.txt, body_acc_y_test.txt"),
        ("train/subject_train.txt", "1\n", "subject_train.txt has 1 rows, but y_train.txt has 5"),
        ("train/y_train.txt", "1\n2\n7\n1\n1\n", "y_train.txt, line 3: no class is called '7'"),
        ("test/y_test.txt", None, "test has no file of labels, such as y_test.txt"),
        ("activity_labels.txt", "1\n", "activity_labels.txt, line 1 must hold the number of a class"),
        ("train/Inertial Signals/body_acc_x.txt", "1\n", "are both called 'body_acc_x': rename one"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_by_name(har, file, content, words):
    if content is None:
        (har / file).unlink()
    else:
        (har / file).write_text(content)
    with pytest.raises(DataError) as caught:
        read(har)
    assert words in str(caught.value)
