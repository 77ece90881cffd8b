"""Files in Weka's form: a sequence in each row; what is said of those that cannot be read."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data.archive import Archive
from rnnclf.data.recordings import Recordings
from rnnclf.errors import DataError, RnnclfError
from tests.damage import DAMAGE, damaged


def read(path: Path) -> Recordings:
    return Archive(path=str(path)).read()


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


ARFF = """% made by hand
@RELATION Toy
@attribute att1 numeric
@attribute 'att 2' real
@ATTRIBUTE att3 numeric
@attribute target {walk, run}
@data
1, 2, 3, walk
4,?,6,run
7.5,8,?,walk
"""
RELATIONAL = """@relation Toy
@attribute relationalAtt relational
  @attribute t1 numeric
  @attribute t2 numeric
  @attribute t3 numeric
@end relationalAtt
@attribute cls {walk,run}
@data
"1,2,3\\n4,5,6",walk
"7,8,?\\n9,10,?",run
"""


def test_an_arff_file_has_a_sequence_for_each_row(tmp_path):
    recordings = read(write(tmp_path / "Toy.arff", ARFF))
    assert recordings.classes == ("run", "walk")
    assert recordings.labels_N.tolist() == [1, 0, 1]
    assert recordings.lengths_N.tolist() == [3, 3, 2]
    np.testing.assert_array_equal(recordings.values_SC[:, 0], [1, 2, 3, 4, np.nan, 6, 7.5, 8])
    assert recordings.place(4) == "Toy.arff, row 2, step 1 (counted from 0)"


def test_an_arff_file_may_have_a_table_of_channels_in_each_row(tmp_path):
    recordings = read(write(tmp_path / "Toy.arff", RELATIONAL))
    assert recordings.labels_N.tolist() == [1, 0]
    assert recordings.lengths_N.tolist() == [3, 2]
    assert recordings.values_SC.tolist() == [[1, 4], [2, 5], [3, 6], [7, 9], [8, 10]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("no arff", "is not an .arff file, or is damaged"),
        (
            ARFF.replace("{walk, run}", "numeric").replace("walk", "1").replace("run", "2"),
            "it must be the class",
        ),
        (ARFF.replace("real", "{2,8}"), "attribute att 2 is nominal; it must be numeric"),
        (ARFF.replace("4,?,6", "?,?,?"), "row 2: the sequence has no values"),
        (ARFF.replace("6,run", "6,sit"), "is not an .arff file, or is damaged"),
        (ARFF.replace("6,run", "6,?"), "row 2: the label is missing"),
        (ARFF.partition("1, 2")[0], "has no sequences"),
        ("@data\n1,walk\n", "has no sequences"),
        (RELATIONAL.replace("\\n9,10,?", ""), "row 2 has 1 channels, row 1 has 2"),
    ],
)
def test_an_arff_file_that_cannot_be_read_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "Toy.arff", text))
    assert words in str(caught.value)


@pytest.mark.long
@given(st.sampled_from([ARFF, RELATIONAL]), *DAMAGE)
@settings(max_examples=120, deadline=None)
def test_damaged_arff_files_are_read_or_refused_in_words(text, kind, place, other):
    with tempfile.TemporaryDirectory() as base:
        path = Path(base, "Toy.arff")
        path.write_bytes(damaged(text.encode(), kind, place, other))
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(path), Recordings)
