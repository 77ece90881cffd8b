"""What one pass over the values tells, and that it is remembered only for the values it is of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnclf.data import survey
from rnnclf.data.recordings import Recordings
from rnnclf.data.survey import chunks, digests, moments, steps_of
from rnnclf.errors import DataError


def recordings(**more: object) -> Recordings:
    """Five ragged sequences of two channels, padding and missing values among them."""
    random = np.random.default_rng(0)
    values_SC = random.normal(3, 2, (30, 2))
    values_SC[random.random((30, 2)) < 0.2] = np.nan
    starts_N, lengths_N = np.array([4, 0, 10, 12, 20]), np.array([3, 4, 1, 8, 9])
    parts = {
        "values_SC": values_SC,
        "starts_N": starts_N,
        "lengths_N": lengths_N,
        "labels_N": np.arange(5) % 2,
    }
    return Recordings(**{**parts, "classes": ("a", "b"), "channels": ("u", "v"), **more})


def of_each(data: Recordings) -> list[np.ndarray]:
    return [
        data.values_SC[start : start + length]
        for start, length in zip(data.starts_N, data.lengths_N, strict=True)
    ]


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_moments_are_those_of_each_sequence_alone(monkeypatch, chunk):
    monkeypatch.setattr(survey, "CHUNK", chunk)
    monkeypatch.setattr(survey.chunks, "__defaults__", (chunk,))
    data = recordings()
    found = moments(data)
    for n, x_TC in enumerate(of_each(data)):
        for c in range(2):
            there = x_TC[~np.isnan(x_TC[:, c]), c]
            assert found.count_NC[n, c] == len(there)
            if len(there):
                expected = there.mean(), ((there - there.mean()) ** 2).sum(), there.min(), there.max()
                parts = (found.mean_NC, found.squares_NC, found.low_NC, found.high_NC)
                np.testing.assert_allclose([part[n, c] for part in parts], expected, rtol=1e-12, atol=1e-12)
    assert found.missing_C(data.lengths_N).tolist() == [
        sum(int(np.isnan(x_TC[:, c]).sum()) for x_TC in of_each(data)) for c in range(2)
    ]


def test_padding_is_no_part_of_a_sequence():
    data = recordings()
    inside = np.zeros(30, bool)
    for start, length in zip(data.starts_N, data.lengths_N, strict=True):
        inside[start : start + length] = True
    other = recordings(values_SC=np.where(inside[:, None], data.values_SC, np.inf))
    assert digests(data).fingerprint(data) == digests(other).fingerprint(other)
    np.testing.assert_array_equal(moments(data).mean_NC, moments(other).mean_NC)


def test_equal_sequences_have_equal_digests_and_others_not():
    data = recordings(starts_N=np.array([0, 4, 0, 12, 20]), lengths_N=np.array([4, 3, 4, 8, 9]))
    found = digests(data).digests_N.tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"values_SC": np.ones((30, 2))},
        {"labels_N": np.ones(5, np.int64)},
        {"classes": ("a", "c")},
        {"channels": ("u", "w")},
        {"times_S": np.arange(30.0)},
        {"groups_N": np.arange(5)},
        {"given_N": np.zeros(5, np.int8)},
        {"unit": 255.0},
        {"values_SC": recordings().values_SC.astype(np.float32)},
    ],
)
def test_the_fingerprint_sees_all_that_is_read(change):
    one, other = recordings(), recordings(**change)
    assert digests(one).fingerprint(one) != digests(other).fingerprint(other)
    again = recordings()
    assert digests(one).fingerprint(one) == digests(again).fingerprint(again)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_what_is_remembered_is_used_and_what_is_damaged_is_found_again(tmp_path, monkeypatch, damage):
    data = recordings(cache=tmp_path)
    first = moments(data)
    with monkeypatch.context() as patch:
        patch.setattr(survey, "_moments", None)  # calling it would fail
        np.testing.assert_array_equal(moments(data).squares_NC, first.squares_NC)
    file = tmp_path / "moments.npz"
    file.write_bytes(file.read_bytes()[:-40] if damage is None else damage)
    np.testing.assert_array_equal(moments(data).squares_NC, first.squares_NC)


def test_an_infinite_value_is_told_with_its_place():
    values_SC = recordings().values_SC.copy()
    values_SC[14, 1] = -np.inf
    with pytest.raises(DataError, match=r"sequence 3, step 2 \(counted from 0\): channel 'v' is infinite"):
        moments(recordings(values_SC=values_SC))
    with pytest.raises(DataError, match=r"^my.csv, line 16: channel 'v'"):
        moments(replace(recordings(values_SC=values_SC), locate=lambda step: f"my.csv, line {step + 2}"))


def test_chunks_cover_all_and_hold_no_more_than_asked_for_unless_one_is_larger():
    sizes_N = np.array([3, 3, 9, 1, 1, 1, 4])
    assert list(chunks(sizes_N, most=6)) == [(0, 2), (2, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize("starts", [[0, 3, 5], [5, 0, 9]])
def test_the_steps_of_sequences_are_found_wherever_they_lie(starts):
    steps = steps_of(np.array(starts), np.array([3, 2, 4]))
    expected = [
        s for start, length in zip(starts, [3, 2, 4], strict=True) for s in range(start, start + length)
    ]
    assert np.arange(20)[steps].tolist() == expected
