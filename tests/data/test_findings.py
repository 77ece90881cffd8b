"""What `rnnclf data check` says of odd data, and that it says nothing of data that are not odd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnclf.data.doubts import absent_classes, giveaways, refuse_untrained
from rnnclf.data.findings import findings
from rnnclf.data.outliers import outlying
from rnnclf.data.recordings import Recordings, recordings_of
from rnnclf.data.survey import digests, moments
from rnnclf.errors import DataError


def noise(n: int = 40, steps: int = 5, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, steps, channels))


def told(recordings: Recordings, *options: str) -> str:
    found = findings(recordings, moments(recordings), digests(recordings), options)
    return "\n".join(finding.sentence for finding in found)


def given_away(recordings: Recordings) -> list[tuple[str, str]]:
    found = giveaways(recordings, moments(recordings))
    return [(finding.without[0], finding.severity) for finding in found]


def with_column(column_N: np.ndarray, labels_N: np.ndarray, **more: object) -> Recordings:
    """Noise beside a channel with one value in each sequence."""
    x_NTC = noise(len(column_N))
    x_NTC[:, :, 1] = np.asarray(column_N)[:, None]
    return recordings_of(x_NTC, labels_N, channels=("ax", "extra"), **more)


# Channels that give the class away


MIXED = np.random.default_rng(1).permutation(np.arange(40) % 2)


@pytest.mark.parametrize(
    "column_N",
    [
        MIXED,
        MIXED * 2 + np.arange(40) % 2,  # two codes for each class
        MIXED + np.random.default_rng(0).random(40) / 2,  # all different, with a gap between the classes
    ],
)
def test_a_constant_of_each_sequence_that_tells_every_class_is_a_leak(column_N):
    assert given_away(with_column(column_N, MIXED)) == [("extra", "doubtful")]


@pytest.mark.parametrize(
    "column_N",
    [
        np.random.default_rng(0).random(40),  # such as an age
        np.arange(40) % 4 // 2,
        np.full(40, 3.0),
        np.where(np.arange(40) == 7, 1 - MIXED, MIXED),  # wrong for one sequence
    ],
)
def test_a_constant_of_each_sequence_that_does_not_tell_it_is_none(column_N):
    assert given_away(with_column(column_N, MIXED)) == []


def test_few_sequences_are_told_apart_by_chance():
    labels_N = np.array([0, 1, 0, 1, 1, 0])
    assert given_away(with_column(labels_N + 0.1 * np.arange(6), labels_N)) == []


def test_a_value_for_each_patient_is_no_evidence_where_the_patients_are_few():
    groups_N = np.repeat(np.arange(6), 10)
    labels_N, age_N = (groups_N > 2).astype(int), 40 + groups_N
    assert given_away(with_column(age_N, labels_N, groups_N=groups_N)) == []
    assert ("extra", "doubtful") in given_away(with_column(age_N, labels_N))  # ten times the evidence


def test_a_column_that_is_empty_for_one_class_gives_it_away():
    found = with_column(np.where(MIXED, np.nan, np.arange(40) % 3), MIXED)
    assert given_away(found) == [("extra", "doubtful")]
    assert "has no values in any sequence of '1'" in giveaways(found, moments(found))[0].sentence
    some_N = np.where(np.arange(40) % 3, np.nan, 1.0)
    assert given_away(with_column(some_N, MIXED)) == []


def numbered(labels_N: np.ndarray, sign: int = 1) -> Recordings:
    """Noise beside the number of the row."""
    x_NTC = noise(len(labels_N))
    x_NTC[:, :, 1] = sign * np.arange(x_NTC[:, :, 1].size).reshape(len(labels_N), -1)
    return recordings_of(x_NTC, labels_N, channels=("ax", "row"))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_number_of_a_row_gives_the_class_away_if_rows_are_sorted_by_it(sign):
    assert given_away(numbered(np.arange(40) // 20, sign)) == [("row", "doubtful")]
    assert given_away(numbered(np.arange(40) // 10 % 2, sign)) == [("row", "doubtful")]
    assert given_away(numbered(MIXED, sign)) == [("row", "warning")]


def test_numbers_that_begin_again_in_the_test_file_are_numbers_of_rows():
    both = np.concatenate([np.arange(20), np.arange(20)])
    x_NTC = noise()
    x_NTC[:, :, 1] = 5 * both[:, None] + np.arange(5)
    given_N = np.where(np.arange(40) < 20, -1, 2).astype(np.int8)
    labels_N = np.tile(np.arange(20) // 10, 2)
    assert given_away(recordings_of(x_NTC, labels_N, given_N=given_N)) == [("1", "doubtful")]
    assert given_away(recordings_of(x_NTC, labels_N)) == []


def test_measured_channels_that_tell_the_classes_apart_are_no_leak():
    x_NTC = noise()
    x_NTC[:, :, 0] += 100 * MIXED[:, None]
    assert given_away(recordings_of(x_NTC, MIXED)) == []
    ascending = np.sort(noise(40, 5, 1).ravel()).reshape(40, 5)  # each sequence alone
    x_NTC[:, :, 1] = np.random.default_rng(0).permutation(ascending)
    assert given_away(recordings_of(x_NTC, MIXED)) == []


def test_honest_data_are_hardly_ever_blamed():
    """Constants that say nothing of the class: at most one set in 1,000 is blamed by chance."""
    random = np.random.default_rng(0)
    blamed = 0
    for trial in range(300):
        n, k = int(random.integers(4, 30)), int(random.integers(2, 4))
        labels_N = random.permutation(np.arange(n) % k)
        column_N = (random.random(n), random.integers(0, 3, n), random.integers(0, n, n))[trial % 3]
        blamed += len(given_away(with_column(column_N, labels_N)))
    assert blamed <= 2


def test_ordinary_series_have_no_findings():
    random = np.random.default_rng(0)
    for trial in range(30):
        n, steps = int(random.integers(20, 60)), int(random.integers(4, 60))
        x_NTC = random.normal(size=(n, steps, 3))
        x_NTC[:, :, 1] = np.exp(2 * x_NTC[:, :, 1])  # heavy tail
        x_NTC[:, :, 2] = x_NTC[:, :, 2].cumsum(axis=1)
        found = recordings_of(
            x_NTC.astype(np.float32),
            np.arange(n) % 3,
            lengths_N=random.integers(max(steps // 3, 3), steps + 1, n),
        )
        assert (told(found), given_away(found)) == ("", []), trial


@pytest.mark.parametrize("levels", [2, 5, 20, 200])
def test_coarse_values_have_no_findings(levels):
    x_NTC = np.random.default_rng(0).integers(0, levels, (40, 30, 2)).astype(float)
    assert told(recordings_of(x_NTC, MIXED)) == ""


# Names of classes


def alike(*names: str) -> str:
    labels = [name for number, name in enumerate(names) for _ in range(40 if number == 0 else 3)]
    return told(recordings_of(noise(len(labels)), labels))


@pytest.mark.parametrize(
    "other", ["Walk up", "WALK UP", " walk up", "walk up ", "walk-up", "walk_up", "walk  up", "walk\xa0up"]
)
def test_classes_that_differ_in_how_they_are_written_are_named(other):
    found = alike("walk up", "run", other)
    assert "(40 sequences)" in found
    assert f"'{other}' (3 sequences)" in found
    assert "differ only in how they are written" in found


@pytest.mark.parametrize("names", [("a", "A"), ("walk", "walks"), ("1", "-1"), ("11", "1_1"), ("1", "10")])
def test_classes_that_differ_in_more_are_not(names):
    assert "written" not in alike(*names)


def test_numbers_that_are_equal_are_written_alike():
    assert "'1' (40 sequences) and '1.0' (3 sequences)" in alike("1", "1.0", "2")


def test_a_typing_error_is_given_no_weight():
    labels = ["walk"] * 40 + ["run"] * 40 + ["Walk"]
    recordings = recordings_of(noise(81), labels)
    found = findings(recordings, moments(recordings), digests(recordings))
    assert [finding.words for finding in found] == [()]
    rare = recordings_of(noise(86), [*labels, *["sit"] * 2, *["Sit"] * 3])
    found = findings(rare, moments(rare), digests(rare))
    assert any("Class 'walk' has 41 sequences, 'Sit' 5." in finding.sentence for finding in found) is False
    assert not any(finding.words for finding in found)


# Classes without sequences in a split


PARTS = {"train": np.arange(20), "validation": np.arange(20, 30), "test": np.arange(30, 40)}


def test_a_class_without_test_or_validation_sequences_is_told():
    labels_N = np.where(np.arange(40) < 2, 2, np.arange(40) % 2)
    found = absent_classes(recordings_of(noise(), labels_N), PARTS)
    assert [finding.sentence for finding in found] == [
        f"Class '2' has no sequence in the {name} split, so its score says nothing about it."
        for name in ("validation", "test")
    ]
    many = np.where(np.arange(40) < 20, np.arange(40) % 10, np.arange(40) % 2)
    (_, sentence) = (finding.sentence for finding in absent_classes(recordings_of(noise(), many), PARTS))
    assert sentence.startswith("Classes '2', '3', '4' and 5 more have no sequence in the test split")


@pytest.mark.parametrize(
    ("places", "where"),
    [((25,), "validation split"), ((35,), "test split"), ((25, 35), "validation and the test split")],
)
def test_a_class_that_is_not_trained_on_is_refused(places, where):
    labels_N = np.arange(40) % 2
    labels_N[list(places)] = 2
    with pytest.raises(
        DataError, match=f"Class '2' occurs in the {where} only: there is nothing to train on"
    ):
        refuse_untrained(recordings_of(noise(), labels_N), PARTS)


# Values


@pytest.mark.parametrize("code", [0, -1, -32768, 65535, -9999, 4095, 1e9])
def test_a_value_far_from_all_others_is_told(code):
    x_NTC = 500 + 30 * noise(40, 20)
    gone = np.random.default_rng(0).random((40, 20)) < 0.05
    x_NTC[gone, 0] = code
    found = told(recordings_of(x_NTC, MIXED))
    assert f"Channel '0' is {code:g} at {gone.sum()} steps and" in found
    assert "if it marks missing values, leave them empty" in found
    found = told(recordings_of(x_NTC, MIXED), "missing_values")
    assert f"set dataset.missing_values=[{code:g}]" in found


def test_several_such_values_of_a_channel_are_told():
    x_NTC = 500 + 30 * noise(40, 20)
    x_NTC[3, ::4, 0], x_NTC[5, ::4, 0], x_NTC[9, ::4, 0] = -9999, 0, 65535
    found = recordings_of(x_NTC, MIXED)
    assert {far.value for far in outlying(found, moments(found))} == {-9999, 0, 65535}
    assert all(400 > far.low > 100 and far.high < 700 for far in outlying(found, moments(found)))


def test_values_that_are_usual_are_not_suspicious():
    random = np.random.default_rng(0)
    pulses = np.where(random.random((40, 20)) < 0.2, 100 + 20 * random.random((40, 20)), 0)  # rests at 0
    switch = np.where(random.random((40, 20)) < 0.3, 5.0, 0.0)
    codes = random.integers(5, 9, (40, 20)) * (random.random((40, 20)) < 0.9)
    clipped = np.minimum(random.normal(size=(40, 20)), 1)
    x_NTC = np.stack((pulses, switch, codes, clipped), axis=2)
    assert "missing" not in told(recordings_of(x_NTC, MIXED))


def test_digits_that_32_bits_lose_are_told():
    x_NTC = noise(40, 5, 3)
    x_NTC[:, :, 0] = 1e9 + 0.1 * x_NTC[:, :, 0]
    found = told(recordings_of(x_NTC, MIXED))
    assert found.startswith("Channel '0' is 999999999.6")
    assert (
        "32-bit numbers of that size are 64 apart: if digits are lost, set dataset.normalise=standard."
        in found
    )
    found = told(recordings_of(x_NTC.astype(np.float32), MIXED))
    assert "constant:" not in found
    assert "Channel '0' is 1000000000 throughout, but 32-bit numbers of that size are 64 apart" in found
    x_NTC[:, :, 0] = 1e5 + 10 * noise(40, 5, 1)[:, :, 0]
    assert told(recordings_of(x_NTC, MIXED)) == ""


# Steps


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        (
            [5] * 28 + [2000] * 2,
            "2 sequences (number 28, number 29) have at least 2,000 steps, the others at",
        ),
        ([2] + [2000] * 5, "1 sequence (number 0) has at most 2 steps, the others at least 2,000: check"),
        ([5, 8, 20, 60, 300, 900, 2000], ""),  # of all lengths
    ],
)
def test_a_gap_in_the_lengths_is_told(lengths, sentence):
    x_NTC = noise(len(lengths), max(lengths), 1)
    found = told(recordings_of(x_NTC, np.arange(len(lengths)) % 2, lengths_N=np.array(lengths)))
    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)


def twice(how: str) -> np.ndarray:
    x_NTC = noise()
    if how == "each":
        return np.repeat(x_NTC, 2, axis=1)
    if how == "all":
        return np.tile(x_NTC, (1, 2, 1))
    x_NTC = noise(steps=30)
    x_NTC[3, 20:28] = x_NTC[3, 10:18]
    return x_NTC


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("each", "200 steps in 40 sequences repeat earlier steps of the same sequence, the first at"),
        ("all", "200 steps in 40 sequences repeat earlier steps of"),
        (
            "some",
            "8 steps in 1 sequence repeat earlier steps of the same sequence, the first at sequence 3, st",
        ),
    ],
)
def test_rows_that_were_written_twice_are_told(how, sentence):
    recordings = recordings_of(twice(how), MIXED)
    assert sentence in told(recordings)
    timed = replace(recordings, times_S=np.tile(np.arange(len(recordings.values_SC) // 40), 40).astype(float))
    assert "repeat" not in told(timed)


def test_steps_that_are_equal_for_other_reasons_were_not_written_twice():
    t_T = np.arange(60)
    periodic = np.sin(2 * np.pi * (t_T % 12) / 12) + np.zeros((40, 1))
    held = np.repeat(noise(40, 6, 1), 10, axis=1)[..., 0]
    resting = np.where(t_T < 30, 0, noise(40, 60, 1)[..., 0])
    slow = noise(40, 60, 1)[..., 0].cumsum(axis=1).round(1)
    for x_NT in (periodic, held, resting, slow):
        recordings = recordings_of(x_NT[:, :, None] + np.zeros(2), MIXED)
        assert "written twice" not in told(recordings)
