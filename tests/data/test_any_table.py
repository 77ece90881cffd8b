"""Any sequences, written in any form of table, come back."""

from __future__ import annotations

import tempfile

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.tables import excel, feather, json_lines, parquet, read, sequences_of

# --- properties -------------------------------------------------------------------------------------

# a channel of denormal numbers alone is refused, see test_bad_tables.py
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
STEPS = st.lists(st.tuples(NUMBERS, st.none() | NUMBERS), min_size=1, max_size=5)
SEQUENCES = st.lists(
    st.tuples(st.sampled_from(["a", "b c", 'q"', "ü,;", "-1", "2"]), STEPS), min_size=2, max_size=6
)


def long_frame(sequences: list, order: list[int]) -> pl.DataFrame:
    rows = [
        (n, 10.0 * t, x, y, label)
        for n, (label, steps) in enumerate(sequences)
        for t, (x, y) in enumerate(steps)
    ]
    kinds = {"id": pl.Int64, "time": pl.Float64, "x": pl.Float64, "z": pl.Float64, "label": pl.String}
    return pl.DataFrame([rows[n] for n in order], schema=kinds, orient="row")


def wide_frame(sequences: list) -> pl.DataFrame:
    longest = max(len(steps) for _, steps in sequences)
    columns = {
        f"{name}_{t}": pl.Series(
            [steps[t][c] if t < len(steps) else None for _, steps in sequences], dtype=pl.Float64
        )
        for c, name in enumerate(("x", "z"))
        for t in range(longest)
    }
    return pl.DataFrame({"label": [label for label, _ in sequences], **columns})


def in_32_bits(sequences: list) -> list:
    """The numbers as they were drawn: the files of Excel that are written here have 16 digits of them."""
    return [
        (label, [[None if v is None else float(np.float32(v)) for v in step] for step in steps])
        for label, steps in sequences
    ]


@pytest.mark.long
@settings(max_examples=5, deadline=None)
@given(SEQUENCES, st.randoms(use_true_random=False))
def test_sequences_read_back_equal_however_they_are_written(sequences, random):
    order = list(range(sum(len(steps) for _, steps in sequences)))
    random.shuffle(order)
    long, wide = long_frame(sequences, order), wide_frame(sequences)
    expected = [
        (label, [[x + 0.0, None if y is None else y + 0.0] for x, y in steps]) for label, steps in sequences
    ]
    lists = [
        {"label": label, "x": [x for x, _ in steps], "z": [z for _, z in steps]} for label, steps in sequences
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", folder)
        for form, frame in (("long", long), ("wide", wide)):
            found = [
                read(frame.write_csv(), f"{form}.csv", form=form),
                read(frame.write_csv(separator="\t", quote_style="always"), f"{form}.tsv", form=form),
                read(parquet(frame), f"{form}.parquet", form=form),
                read(feather(frame), f"{form}.feather", form=form),
                read(json_lines(frame.to_dicts()), f"{form}.jsonl", form=form),
                read(excel([frame.columns, *frame.rows()]), f"{form}.xlsx", form=form),
            ]
            for recordings in found:
                assert in_32_bits(sequences_of(recordings)) == expected
                assert recordings.channels == ("x", "z")
                assert recordings.classes == found[0].classes
        assert in_32_bits(sequences_of(read(json_lines(lists), "lists.jsonl"))) == expected
