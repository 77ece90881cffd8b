"""Missing values and normalisers, against a restatement in plain Python; nothing is learned from the test."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnclf.data import Learned
from rnnclf.data import gaps as module
from rnnclf.data.gaps import without_gaps
from rnnclf.data.matching import matched
from rnnclf.data.npy import to_trainable
from rnnclf.data.preparation import Preparation, fitted
from rnnclf.data.recordings import Recordings
from rnnclf.errors import CheckpointError, ConfigError, DataError

LENGTHS = [4, 1, 6, 3, 5]
NAN = math.nan


def recordings(times: bool = False, gaps: bool = True, **more: object) -> Recordings:
    """Five ragged sequences of two channels; each channel of each is seen once at least."""
    random = np.random.default_rng(1)
    steps = sum(LENGTHS)
    starts_N = np.cumsum(LENGTHS) - LENGTHS
    values_SC = random.normal(3, 2, (steps, 2))
    if gaps:
        holes = random.random((steps, 2)) < 0.4
        holes[starts_N + np.array([0, 0, 3, 2, 1])] = False
        values_SC[holes] = NAN
    parts = {
        "values_SC": values_SC,
        "starts_N": starts_N,
        "lengths_N": np.array(LENGTHS),
        "labels_N": np.arange(5) % 2,
        "times_S": np.cumsum(random.uniform(0.1, 2, steps)) if times else None,
    }
    return Recordings(**{**parts, "classes": ("a", "b"), "channels": ("u", "v"), **more})


def padded(data: Recordings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(x_BTC, lengths_B, times_BT); what lies behind the ends is absurd."""
    t = max(LENGTHS) + 2
    x = np.full((5, t, 2), 1e30)
    times = np.full((5, t), -1e30)
    for n, (start, length) in enumerate(zip(data.starts_N, data.lengths_N, strict=True)):
        x[n, :length] = data.values_SC[start : start + length]
        if data.times_S is not None:
            times[n, :length] = data.times_S[start : start + length]
    lengths_B = torch.from_numpy(data.lengths_N)
    return torch.from_numpy(x), lengths_B, None if data.times_S is None else torch.from_numpy(times)


def restated_mask(x: list[float], times: list[float], interval: float) -> list[tuple[float, float, float]]:
    found, last = [], times[0]
    for value, time in zip(x, times, strict=True):
        seen = not math.isnan(value)
        last = time if seen else last
        found.append((value if seen else 0.0, float(seen), math.log1p((time - last) / interval)))
    return found


@pytest.mark.parametrize("times", [False, True])
def test_mask_gives_values_what_is_there_and_since_when(times):
    data = recordings(times)
    prepare = fitted(data, np.arange(5), "mask", "none")
    x_BTI = prepare(*padded(data))
    assert prepare.input_size == x_BTI.shape[2] == 6
    for n, length in enumerate(LENGTHS):
        part = slice(data.starts_N[n], data.starts_N[n] + length)
        clock = data.times_S[part].tolist() if times else list(range(length))
        for c in range(2):
            expected = restated_mask(data.values_SC[part, c].tolist(), clock, prepare.interval)
            np.testing.assert_allclose(x_BTI[n, :length, c::2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("times", [False, True])
def test_interpolate_draws_the_lines_that_numpy_draws(times):
    data = recordings(times)
    x_BTI = fitted(data, np.arange(5), "interpolate", "none")(*padded(data))
    for n, length in enumerate(LENGTHS):
        part = slice(data.starts_N[n], data.starts_N[n] + length)
        clock = data.times_S[part] if times else np.arange(length)
        for c in range(2):
            x = data.values_SC[part, c]
            there = ~np.isnan(x)
            expected = np.interp(clock, clock[there], x[there])
            np.testing.assert_allclose(x_BTI[n, :length, c], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_a_channel_that_a_sequence_never_saw_is_the_mean(missing):
    data = recordings()
    data.values_SC[:4, 0] = NAN
    prepare = fitted(data, np.arange(5), missing, "standard")
    assert prepare(*padded(data))[0, :4, 0].tolist() == [0.0] * 4


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
@pytest.mark.parametrize("times", [False, True])
def test_what_lies_behind_the_end_changes_nothing_before_it(missing, times):
    data = recordings(times)
    prepare = fitted(data, np.arange(5), missing, "standard")
    x_BTC, lengths_B, times_BT = padded(data)
    before = prepare(x_BTC, lengths_B, times_BT)
    behind = torch.arange(x_BTC.shape[1]) >= lengths_B.unsqueeze(-1)
    x_BTC[behind] = NAN
    after = prepare(x_BTC, lengths_B, times_BT)
    assert torch.equal(before[~behind], after[~behind])


def test_the_normalisers_are_numpys_of_the_training_values_alone():
    data, train = recordings(), np.array([0, 2, 4])
    together = np.concatenate([data.values_SC[data.starts_N[n] :][: data.lengths_N[n]] for n in train])
    low, middle, high = np.nanpercentile(together, (25, 50, 75), axis=0)
    expected = {
        "none": ([0, 0], [1, 1]),
        "standard": (np.nanmean(together, axis=0), np.nanstd(together, axis=0)),
        "minmax": (np.nanmin(together, axis=0), np.nanmax(together, axis=0) - np.nanmin(together, axis=0)),
        "robust": (middle, high - low),
    }
    for name, (shift, scale) in expected.items():
        found = fitted(data, train, "mask", name)
        np.testing.assert_allclose(found.shift_C, shift, rtol=1e-12)
        np.testing.assert_allclose(found.scale_C, scale, rtol=1e-12)


@pytest.mark.parametrize("normalise", ["standard", "minmax", "robust", "quantiles"])
def test_other_sequences_than_those_of_the_training_change_nothing(normalise):
    data, train = recordings(times=True), np.array([0, 2, 4])
    before = fitted(data, train, "mask", normalise)
    data.values_SC[data.starts_N[3] :][:3] = 1e6
    data.values_SC[data.starts_N[1]] = -1e6
    assert fitted(data, train, "mask", normalise) == before


@pytest.mark.parametrize("normalise", ["standard", "minmax", "robust", "quantiles"])
def test_a_constant_channel_is_not_divided_by_nothing(normalise):
    data = recordings(gaps=False)
    data.values_SC[:, 1] = 5.0
    prepare = fitted(data, np.arange(5), "error", normalise)
    assert prepare.scale_C[1] == 1.0
    assert prepare(*padded(data))[2, :6, 1].tolist() == [0.0] * 6


def test_large_values_with_a_small_spread_keep_their_spread():
    data = recordings(gaps=False)
    data.values_SC[:] += 1e9
    x_BTI = fitted(data, np.arange(5), "error", "standard")(*padded(data))
    together = torch.cat([x_BTI[n, :length] for n, length in enumerate(LENGTHS)])
    assert together.std(dim=0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-4)


def at_scales(dtype: str, *scales: float, offset: float = 0.0) -> Recordings:
    """Channels that differ in nothing but their scale."""
    x = np.random.default_rng(2).normal(size=(60, 1)) + offset
    values_SC = (x * np.array(scales)).astype(dtype)
    lengths_N = np.full(12, 5)
    names = tuple(map(str, range(len(scales))))
    starts_N = np.arange(12) * 5
    return Recordings(values_SC, starts_N, lengths_N, np.arange(12) % 2, ("a", "b"), names)


@pytest.mark.parametrize("normalise", ["standard", "minmax", "robust", "quantiles"])
@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        ("float64", (1.0, 1e-300, 1e300, 1e-160, 1e160)),
        ("float64", (1.0, 2.0**1020, 2.0**-1015)),
        ("float32", (1.0, 1e-42, 1e37)),
    ],
)
def test_a_channel_is_the_same_at_every_scale(dtype, scales, offset, normalise):
    data = at_scales(dtype, *scales, offset=offset)
    found = fitted(data, np.arange(8), "error", normalise)
    x_BTC = torch.from_numpy(data.values_SC).view(12, 5, -1)
    prepared = found(x_BTC, torch.full((12,), 5), None)
    digits = 1e-5 if dtype == "float64" else 1e-2  # float32 holds 1e-42 with three digits
    for c in range(1, len(scales)):
        torch.testing.assert_close(prepared[..., c], prepared[..., 0], rtol=digits, atol=digits)


@pytest.mark.parametrize("value", [1e300, -1e-300, 3.0, 0.0])
def test_a_constant_channel_is_harmless_at_every_scale(value):
    data = at_scales("float64", 1.0, 1.0)
    data.values_SC[:, 1] = value
    found = fitted(data, np.arange(8), "error", "standard")
    prepared = found(torch.from_numpy(data.values_SC).view(12, 5, 2), torch.full((12,), 5), None)
    assert prepared.abs().max() < 10


@pytest.mark.parametrize(
    ("dtype", "scale", "normalise", "words"),
    [
        ("float64", 1e300, "none", "too large for 32 bits: set dataset.normalise=standard"),
        ("float64", 1e-300, "none", "too small for 32 bits: set dataset.normalise=standard"),
        ("float32", 1e-42, "none", "too small for 32 bits"),
    ],
)
def test_values_that_float32_cannot_hold_are_refused_unscaled(dtype, scale, normalise, words):
    with pytest.raises(DataError, match=words):
        fitted(at_scales(dtype, 1.0, scale), np.arange(8), "error", normalise)


def test_a_test_value_out_of_all_proportion_is_refused():
    data = at_scales("float64", 1.0, 1e-300)
    data.values_SC[-1, 1] = 1.0
    with pytest.raises(
        DataError, match=r"Channel '1' has values .* too large for 32 bits next to the others"
    ):
        fitted(data, np.arange(8), "error", "standard")


def test_whole_numbers_with_a_small_spread_keep_it():
    """Nanoseconds since 1970 differ in digits that float32 does not hold."""
    data = at_scales("float64", 1.0)
    counts = 1_700_000_000_000_000_000 + (data.values_SC * 1e6).astype(np.int64)
    whole = Recordings(counts, data.starts_N, data.lengths_N, data.labels_N, data.classes, data.channels)
    one, other = (
        fitted(r, np.arange(8), "error", "standard")(
            torch.from_numpy(r.values_SC).view(12, 5, 1), torch.full((12,), 5), None
        )
        for r in (data, whole)
    )
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("spread", [3.0, 1e8])
@pytest.mark.parametrize("kind", ["int32", "uint32", "int64"])
@pytest.mark.parametrize("normalise", ["standard", "minmax", "robust", "quantiles"])
def test_large_whole_numbers_are_prepared_as_floats_of_64_bits_are(kind, spread, normalise):
    """Numbers above 2 ** 24 have digits that float32 does not hold."""
    data = at_scales("float64", spread)
    x = (data.values_SC + 1e9).round()
    prepared = []
    for dtype in (kind, "float64"):
        one = replace(data, values_SC=to_trainable(x.astype(dtype), "x"))
        batch = torch.from_numpy(one.values_SC).view(12, 5, 1)
        prepared.append(fitted(one, np.arange(8), "error", normalise)(batch, torch.full((12,), 5), None))
    assert torch.equal(*prepared)
    assert len(prepared[0].unique()) == len(np.unique(x))


@pytest.mark.parametrize(
    ("dtype", "offset", "normalise", "words"),
    [
        ("float64", 1e9, "none", "lost in 32 bits: set dataset.normalise=standard, or subtract a constant"),
        ("int32", 2e9, "none", "from 19999999"),
        ("int64", 2e9, "none", "from 19999999"),
        ("int64", 4e18, "standard", "whose differences are lost in 64 bits: subtract a constant before"),
    ],
)
def test_differences_that_would_be_lost_are_told(dtype, offset, normalise, words):
    data = at_scales("float64", 3.0)
    data = replace(data, values_SC=data.values_SC.round().astype(dtype) + np.dtype(dtype).type(offset))
    with pytest.raises(DataError, match=words):
        fitted(data, np.arange(8), "error", normalise)
    fitted(at_scales("float64", 1.0, offset=2.0**14), np.arange(8), "error", "none")  # enough is left


def test_bytes_are_divided_by_their_unit_where_nothing_else_is_asked_for():
    data = recordings(values_SC=np.arange(38, dtype=np.uint8).reshape(19, 2), unit=255.0)
    prepare = fitted(data, np.arange(5), "error", "none")
    x = torch.from_numpy(data.values_SC[:4]).unsqueeze(0)
    torch.testing.assert_close(prepare(x, torch.tensor([4]), None), x.float() / 255)


def test_drop_leaves_complete_steps_and_says_what_it_cost():
    data = recordings(times=True)
    data.values_SC[4] = [NAN, 1.0]  # the only step of the second sequence
    found = without_gaps(data, "drop")
    assert found.notes == ("1 of 5 sequences have no step without missing values and were left out.",)
    assert found.labels_N.tolist() == [0, 0, 1, 0]
    for n, old in enumerate([0, 2, 3, 4]):
        part = slice(data.starts_N[old], data.starts_N[old] + data.lengths_N[old])
        complete = ~np.isnan(data.values_SC[part]).any(axis=1)
        kept = slice(found.starts_N[n], found.starts_N[n] + found.lengths_N[n])
        np.testing.assert_array_equal(found.values_SC[kept], data.values_SC[part][complete])
        np.testing.assert_array_equal(found.times_S[kept], data.times_S[part][complete])
    assert found.place(0) == data.place(int(np.flatnonzero(~np.isnan(data.values_SC).any(axis=1))[0]))


@pytest.mark.parametrize(
    ("change", "missing", "words"),
    [
        ({}, "error", "Choose dataset.missing=mask, interpolate or drop."),
        ({}, "error", "the first at sequence 0, step"),
        ({"channel": 1}, "mask", "Channel 'v' has no values at all: leave it out."),
        ({"sequence": 2}, "mask", "The sequence that begins at sequence 2, step 0"),
        ({"sequence": 2}, "interpolate", "has no values at all"),
    ],
)
def test_gaps_that_cannot_be_are_told_with_their_place(change, missing, words):
    data = recordings()
    if "channel" in change:
        data.values_SC[:, change["channel"]] = NAN
    if "sequence" in change:
        start, length = data.starts_N[change["sequence"]], data.lengths_N[change["sequence"]]
        data.values_SC[start : start + length] = NAN
    with pytest.raises(DataError) as caught:
        without_gaps(data, missing)
    assert words in str(caught.value)


def test_without_gaps_nothing_is_asked_for():
    data = recordings(gaps=False)
    assert without_gaps(data, "error") is data


def test_a_copy_that_would_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(module, "COPY_LIMIT", 100)
    with pytest.raises(ConfigError, match="use mask or interpolate, which work batch by batch"):
        without_gaps(recordings(), "drop")


def test_a_preparation_survives_the_way_into_a_checkpoint_and_back():
    prepare = fitted(recordings(times=True), np.arange(4), "mask", "robust")
    assert Preparation.from_plain(prepare.to_plain()) == prepare


@pytest.mark.parametrize(
    "change",
    [
        {"shift_C": [0.0]},
        {"shift_C": None},
        {"interval": "x"},
        {"channels": [], "shift_C": [], "scale_C": []},
    ],
)
def test_a_damaged_preparation_is_refused(change):
    plain = fitted(recordings(), np.arange(4), "mask", "none").to_plain()
    with pytest.raises(ConfigError, match="preparation"):
        Preparation.from_plain({**plain, **change})


# What a model knows of times


def learned(missing: str = "mask", **more: object) -> Learned:
    data = recordings(**more)
    return Learned(fitted(data, np.arange(5), missing, "standard"), data.classes)


def test_a_model_that_was_trained_with_times_needs_them():
    known = learned(times=True)
    assert known.preparation.timed is True
    with pytest.raises(CheckpointError, match="trained with the times of the steps; these data have no col"):
        matched(recordings(), known.preparation)
    kept = matched(recordings(), learned("interpolate", times=True).preparation)
    assert "as if all steps were equally far apart" in kept.notes[0]


def test_a_model_that_was_trained_without_times_is_not_given_any():
    known = learned().preparation
    found = matched(recordings(times=True), known)
    assert found.times_S is None
    assert found.notes == (
        "The model was trained without times: the times of these data only order the steps.",
    )
    x_BTC, lengths_B, _ = padded(recordings())
    torch.testing.assert_close(known(x_BTC, lengths_B, None), known(*padded(found)))


@pytest.mark.parametrize(
    ("factor", "words"), [(1e3, "1,0.. times further apart"), (1 / 60, "[56]. times closer together")]
)
def test_times_in_another_unit_are_told(factor, words):
    known = learned(times=True).preparation
    data = recordings(times=True)
    assert matched(data, known) is data
    found = matched(replace(data, times_S=data.times_S * factor), known)
    assert re.search(rf"{words} than .*: are their times in another unit\?", found.notes[0])


def test_checkpoints_that_do_not_say_whether_there_were_times_are_read():
    known = replace(learned(times=True).preparation, timed=None)
    assert matched(recordings(), known).notes == ()
