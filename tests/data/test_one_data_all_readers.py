"""The same random data in every form give the same sequences, classes, findings and predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.data.archive import Archive
from rnnclf.data.arrays import Arrays
from rnnclf.data.base import Learned, assembled
from rnnclf.data.findings import findings
from rnnclf.data.folder import Folder
from rnnclf.data.preparation import fitted
from rnnclf.data.recordings import Recordings
from rnnclf.data.survey import digests, moments
from rnnclf.data.table import Table
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

OFFSETS = (0.0, 1e4, 1e9, -3e12)


@dataclass(frozen=True)
class Data:
    """Sequences of (T, C) values, NaN for missing, and their labels."""

    sequences: list[np.ndarray]
    labels: list[str]

    @property
    def channels(self) -> list[str]:
        return [f"c{chr(97 + c)}" for c in range(self.sequences[0].shape[1])]

    def rows(self) -> pl.DataFrame:
        """One row per step."""
        parts = [
            pl.DataFrame(
                {"id": [n] * len(x), "label": [label] * len(x), **dict(zip(self.channels, x.T, strict=True))}
            )
            for n, (x, label) in enumerate(zip(self.sequences, self.labels, strict=True))
        ]
        return pl.concat(parts).fill_nan(None)

    def padded(self) -> np.ndarray:
        whole = np.full((len(self.labels), max(map(len, self.sequences)), len(self.channels)), np.nan)
        for n, x in enumerate(self.sequences):
            whole[n, : len(x)] = x
        return whole


@st.composite
def data(draw) -> Data:
    size, many = draw(st.integers(1, 3)), draw(st.integers(4, 7))
    lengths = draw(st.lists(st.integers(1, 6), min_size=many, max_size=many))
    if draw(st.booleans()):
        lengths = [lengths[0] + 1] * many
    offset, random = draw(st.sampled_from(OFFSETS)), np.random.default_rng(draw(st.integers(0, 99)))
    gaps = draw(st.booleans())
    sequences = []
    for length in lengths:
        x = offset + random.integers(-400, 400, (length, size)) / 8 + 1 / 16  # whole numbers may be ids
        if gaps:
            x[:-1][random.random((length - 1, size)) < 0.2] = np.nan
        sequences.append(x)
    names = draw(st.sampled_from((("walk", "run"), ("10", "9", "2"), ("True", "n a"))))
    return Data(sequences, [names[n % len(names)] for n in range(many)])


def long_csv(folder: Path, given: Data) -> Table:
    given.rows().write_csv(folder / "long.csv")
    return Table(path=str(folder / "long.csv"), channels=given.channels, form="long")


def shuffled_csv(folder: Path, given: Data) -> Table:
    """With the sequences in another order, their rows side by side."""
    rows = given.rows().with_row_index("nr")
    order = rows.select(pl.col("nr").rank("ordinal").over("id"), pl.col("id")).with_row_index("at")
    rows[order.sort("nr", -pl.col("id"))["at"]].drop("nr").write_csv(folder / "shuffled.csv")
    return Table(path=str(folder / "shuffled.csv"), channels=given.channels, form="long")


def long_parquet(folder: Path, given: Data) -> Table:
    given.rows().write_parquet(folder / "long.parquet")
    return Table(path=str(folder / "long.parquet"), channels=given.channels, form="long")


def wide_csv(folder: Path, given: Data) -> Table:
    whole = given.padded()
    columns = {
        f"{name}_{t}": whole[:, t, c] for c, name in enumerate(given.channels) for t in range(whole.shape[1])
    }
    pl.DataFrame({"label": given.labels, **columns}).fill_nan(None).write_csv(folder / "wide.csv")
    return Table(path=str(folder / "wide.csv"), channels=given.channels, form="wide")


def npz(folder: Path, given: Data) -> Arrays:
    np.savez(folder / "my.npz", x=given.padded(), y=given.labels, channels=given.channels)
    return Arrays(path=str(folder / "my.npz"))


def class_folders(folder: Path, given: Data) -> Folder:
    for n, (x, label) in enumerate(zip(given.sequences, given.labels, strict=True)):
        place = folder / "classes" / label
        place.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(dict(zip(given.channels, x.T, strict=True))).fill_nan(None).write_csv(
            place / f"s{n}.csv"
        )
    return Folder(path=str(folder / "classes"))


def ts(folder: Path, given: Data) -> Archive:
    labels = [label.replace(" ", "_") for label in given.labels]
    lines = [
        "@problemName my",
        "@timeStamps false",
        f"@missing {str(any(np.isnan(x).any() for x in given.sequences)).lower()}",
        f"@univariate {str(len(given.channels) == 1).lower()}",
        f"@dimensions {len(given.channels)}",
        f"@equalLength {str(len({len(x) for x in given.sequences}) == 1).lower()}",
        f"@classLabel true {' '.join(sorted(set(labels)))}",
        "@data",
    ]
    for x, label in zip(given.sequences, labels, strict=True):
        channels = [",".join("?" if v != v else repr(float(v)) for v in x_T) for x_T in x.T]
        lines.append(":".join([*channels, label]))
    (folder / "my_TRAIN.ts").write_text("\n".join(lines) + "\n")
    return Archive(path=str(folder / "my_TRAIN.ts"))


def in_order(found: Recordings) -> list[int]:
    """The sequences in an order that their content decides."""
    return sorted(range(len(found)), key=lambda n: repr(content(found, n)))


def content(found: Recordings, n: int) -> tuple[str, list[list[float]]]:
    start, length = int(found.starts_N[n]), int(found.lengths_N[n])
    return found.classes[found.labels_N[n]], found.values_SC[start : start + length].astype(float).tolist()


def without_names(sentence: str) -> str:
    """A sentence without the names of sequences and files, which differ from form to form."""
    names = r"'[^']*'|\S*\.(csv|npz|ts|parquet)\S*|\d+ \(counted from 0\)|(line|row|number) \d+"
    return re.sub(names, "", sentence)


class Reader:
    """What the tool makes of recordings, by the preparation and a model for the reference."""

    def __init__(self, reference: Recordings) -> None:
        torch.manual_seed(0)
        preparation = fitted(reference, np.arange(len(reference)), "mask", "standard")
        self.reference, self.learned = reference, Learned(preparation, reference.classes)
        size, classes = preparation.input_size, len(reference.classes)
        self.model = SequenceClassifier(CELLS["basic"](hidden_size=4), size, classes, Stack(engine="loop"))
        self.expected = self.read(reference)

    def read(self, found: Recordings) -> tuple[np.ndarray, list, list]:
        order = in_order(found)
        batch = assembled(found, self.learned).batch(torch.tensor(order))
        told = findings(found, moments(found), digests(found))
        return (
            self.model(batch.x_BTI, batch.lengths_B).detach().numpy(),
            [content(found, n) for n in order],
            sorted((finding.severity, finding.words, without_names(finding.sentence)) for finding in told),
        )

    def compare(self, found: Recordings) -> None:
        reference = self.reference
        if found.channels == tuple(map(str, range(len(found.channels)))):  # of .ts files, which name none
            found = replace(found, channels=reference.channels)
        assert (found.channels, found.classes) == (reference.channels, reference.classes)
        (logits, sequences, told), (wanted, others, known) = self.read(found), self.expected
        assert [label for label, _ in sequences] == [label for label, _ in others]
        for (_, values), (_, other_values) in zip(sequences, others, strict=True):
            np.testing.assert_allclose(values, other_values, rtol=1e-6)
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
        assert told == known


HOW = settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate])


@pytest.mark.long
@HOW
@given(made=data())
def test_every_form_of_data_is_read_alike(made: Data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    reader = Reader(long_csv(folder, made).read())
    for form in (shuffled_csv, long_parquet, wide_csv, npz, class_folders):
        reader.compare(form(folder, made).read())


@pytest.mark.long  # importing aeon takes seconds
@HOW
@given(made=data())
def test_ts_files_are_read_like_tables(made: Data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    plain = Data(made.sequences, [label.replace(" ", "_").lower() for label in made.labels])
    Reader(long_csv(folder, plain).read()).compare(ts(folder, plain).read())
