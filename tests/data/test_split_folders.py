"""Folders that may be splits or classes, or hold a file for each channel."""

from __future__ import annotations

import pytest

from rnnclf.errors import DataError
from tests.data.test_folder import A, B, files, read


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "dev", "Testing"),
        ("train_set", "valid", "test-data"),
        ("TRAIN", "development", "TEST"),
    ],
)
def test_splits_have_the_names_that_people_give_them(tmp_path, names):
    texts = {f"{name}/{label}/a.csv": A for name in names for label in ("run", "walk")}
    for name, text in texts.items():
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    recordings = read(tmp_path / "d")
    assert recordings.classes == ("run", "walk")
    assert recordings.given_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert recordings.place(0) == f"{names[0]}/run/a.csv, line 1"


def test_a_validation_folder_alone_is_not_a_class(tmp_path):
    root = files(tmp_path / "d", train__walk__a_csv=A, train__run__a_csv=A, val__walk__a_csv=B)
    recordings = read(root)
    assert recordings.classes == ("run", "walk")
    assert recordings.given_N.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            {"train__a_csv": A, "test__b_csv": B},
            "'test' and 'train' are named like splits, but 'test' has no class folders in it. Put its files",
        ),
        (
            {"train__walk__a_csv": A, "val__walk__b_csv": B, "extra__walk__c_csv": A},
            "'train' and 'val' are named like splits, but 'extra' beside them is not",
        ),
        (
            {"train__walk__a_csv": A, "val__walk__b_csv": B, "dev__walk__c_csv": A},
            "'dev' and 'val' could each be the validation split",
        ),
        ({"val__walk__a_csv": A, "test__walk__b_csv": B}, "no folder called 'train': there is nothing to"),
    ],
)
def test_folders_that_may_or_may_not_be_splits_are_asked_about(tmp_path, texts, words):
    with pytest.raises(DataError) as caught:
        read(files(tmp_path / "d", **texts))
    assert words in str(caught.value)


def test_one_class_may_be_called_like_a_split(tmp_path):
    recordings = read(files(tmp_path / "d", train__p1__a_csv=A, bus__p1__a_csv=B))
    assert recordings.classes == ("bus", "train")
    assert recordings.given_N is None
