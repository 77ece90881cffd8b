"""Augmentation of series equals its definition restated in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf import augment
from rnnclf.augment import SeriesAugment
from tests.augmented import QUIET, changed, parts_of, series, with_gaps

# Series: along time


def test_even_speed_is_no_warp():
    share_BT = torch.linspace(0, 1, 50).expand(3, 50)
    travelled = augment._distances(torch.full((3, 6), 0.7), share_BT)
    torch.testing.assert_close(travelled, share_BT, rtol=0, atol=1e-6)


def test_the_way_is_the_integral_of_the_speed():
    speeds_BK = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)) + 0.1
    share_BT = torch.linspace(0, 1, 23).expand(4, 23)
    fine = np.linspace(0, 1, 22 * 1000 + 1)
    for speeds_K, way_T in zip(speeds_BK.numpy(), augment._distances(speeds_BK, share_BT), strict=True):
        speed = np.interp(fine, np.linspace(0, 1, 6), speeds_K)
        way = np.concatenate(([0], np.cumsum((speed[1:] + speed[:-1]) / 2)))
        np.testing.assert_allclose(way_T, (way / way[-1])[::1000], rtol=0, atol=1e-6)


def test_the_way_never_leads_beyond_its_end():
    speeds_BK = torch.tensor(
        [[1.41, 0.187, 661483.8, 4.2, 2e-6, 2e-12], [1e6, 1e-3, 1e-5, 2e-2, 5e-7, 5e-13]]
    )
    travelled = augment._distances(speeds_BK, torch.linspace(0, 1, 2000).expand(2, 2000))
    assert ((travelled >= 0) & (travelled <= 1)).all()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    padding=st.integers(0, 5),
    warp=st.sampled_from([0.0, 0.2, 1.0]),
    crop=st.sampled_from([1.0, 0.5, 1e-9]),
    seed=st.integers(0, 1000),
)
def test_positions_rise_from_the_first_to_the_last_step_of_a_window(lengths, padding, warp, crop, seed):
    lengths_B = torch.tensor(lengths)
    x_BTI = torch.empty(len(lengths), max(lengths) + padding, 1)
    along = SeriesAugment(**{**QUIET, "time_warp": warp}, crop=crop)
    torch.manual_seed(seed)
    first_B, kept_B = along._draw_windows(x_BTI, lengths_B)
    assert ((kept_B >= 1) & (kept_B >= (crop * lengths_B).floor())).all()
    assert ((first_B >= 0) & (first_B + kept_B <= lengths_B)).all()
    positions_BT = along._draw_positions(x_BTI, first_B, kept_B)
    assert positions_BT.shape[1] == (kept_B.max() if crop < 1 else x_BTI.shape[1])
    for positions_T, first, kept in zip(positions_BT, first_B, kept_B, strict=True):
        assert positions_T[0] == first or kept == 1
        assert (positions_T[kept - 1 :] == first + kept - 1).all()
        assert (positions_T.diff() >= 0).all()


def test_a_warped_series_is_that_of_np_interp():
    x_BTI, lengths_B = series(), torch.tensor([12, 3, 1, 5, 6, 7, 2])
    warp = SeriesAugment(**{**QUIET, "time_warp": 0.5}, crop=0.5)
    torch.manual_seed(0)
    windows = warp._draw_windows(x_BTI, lengths_B)
    positions_BT = warp._draw_positions(x_BTI, *windows)
    after, kept_B = changed(warp, x_BTI, lengths_B)
    assert torch.equal(kept_B, windows[1])
    for x_TI, positions_T, after_TI in zip(x_BTI, positions_BT, after, strict=True):
        for x_T, after_T in zip(x_TI.T, after_TI.T, strict=True):
            np.testing.assert_allclose(after_T, np.interp(positions_T, range(12), x_T), rtol=0, atol=1e-5)


def test_the_speed_of_a_warp_is_about_as_strong_as_asked():
    along = SeriesAugment(**{**QUIET, "time_warp": 0.2})
    torch.manual_seed(0)
    x_BTI, lengths_B = torch.empty(5000, 501, 1), torch.full((5000,), 501)
    positions_BT = along._draw_positions(x_BTI, torch.zeros_like(lengths_B), lengths_B)
    speed_B = positions_BT[:, 1].double()  # at the first knot, as a share of the mean over all
    knots = np.exp(0.2 * np.random.default_rng(0).normal(size=(200_000, 6)))
    expected = np.log(knots[:, 0] / ((knots[:, 1:] + knots[:, :-1]).mean(axis=1) / 2))
    assert abs(speed_B.log().std() - expected.std()) < 0.01
    assert abs(speed_B.log().mean() - expected.mean()) < 0.01


def test_a_crop_is_a_window_and_all_windows_are_drawn():
    x_BTI = series(1, 6).expand(4000, 6, 3)
    after, lengths_B = changed(SeriesAugment(**QUIET, crop=0.5), x_BTI)
    windows = {(first, kept): 0 for kept in (3, 4, 5, 6) for first in range(6 - kept + 1)}
    for after_TI, kept in zip(after, lengths_B.tolist(), strict=True):
        (first,) = [f for f in range(6 - kept + 1) if torch.equal(after_TI[:kept], x_BTI[0, f : f + kept])]
        windows[first, kept] += 1
    for (_, kept), count in windows.items():  # each length as often, and each place of it
        assert abs(count / 4000 - 1 / 4 / (6 - kept + 1)) < 0.03


@pytest.mark.parametrize("lengths_B", [None, torch.tensor([12, 3, 1, 5, 6, 7, 2])])
def test_lengths_stay_as_they_are_where_nothing_is_cropped(lengths_B):
    after, after_lengths = changed(SeriesAugment(), series(), lengths_B)
    assert after.shape == (7, 12, 3)
    assert after_lengths is lengths_B


def test_a_share_rounded_up_to_one_draws_the_most_there_is():
    assert augment._random_integers(
        torch.tensor([0.0, 0.999, 1.0, 1.0]), torch.tensor([5, 5, 5, 0])
    ).tolist() == [
        0,
        5,
        5,
        0,
    ]


def test_a_cropped_batch_is_as_long_as_its_longest():
    after, lengths_B = changed(SeriesAugment(**QUIET, crop=0.1), series(3, 40), torch.tensor([40, 20, 30]))
    assert after.shape == (3, int(lengths_B.max()), 3)
    assert lengths_B.max() < 40


def test_hidden_steps_are_one_block_as_wide_as_drawn():
    lengths_B = torch.tensor([10, 4, 1] * 2000)
    torch.manual_seed(0)
    hidden_BT = SeriesAugment(time_mask=0.55)._draw_block(torch.empty(6000, 12, 1), lengths_B)
    assert not (hidden_BT & (torch.arange(12) >= lengths_B[:, None])).any()
    assert (hidden_BT.int().diff(dim=1).abs().sum(dim=1) <= 2).all()  # one block at most
    widths_B = hidden_BT.sum(dim=1)
    for length, most in ((10, 5), (4, 2), (1, 0)):
        counts = widths_B[lengths_B == length].bincount(minlength=most + 1)
        assert len(counts) == most + 1
        assert (counts / 2000 - 1 / (most + 1)).abs().max() < 0.04
    widest_BT = hidden_BT[(lengths_B == 10) & (widths_B == 5)]
    firsts = widest_BT.int().argmax(dim=1).bincount()
    assert len(firsts) == 6
    assert (firsts / len(widest_BT) - 1 / 6).abs().max() < 0.07


def test_hidden_steps_are_zero_and_the_others_as_they_were():
    x_BTI = series()
    torch.manual_seed(0)
    hidden_BT = SeriesAugment(time_mask=0.6)._draw_block(x_BTI, torch.full((7,), 12))
    after, _ = changed(SeriesAugment(**QUIET, time_mask=0.6), x_BTI)
    assert hidden_BT.any()
    np.testing.assert_array_equal(after, np.where(hidden_BT[..., None], 0, x_BTI))


# Series: the values


def test_jitter_is_gaussian_noise_of_its_deviation():
    x_BTI = series(50, 100, 4)
    noise = (changed(SeriesAugment(**{**QUIET, "jitter": 0.3}), x_BTI)[0] - x_BTI).flatten()
    assert abs(noise.std() - 0.3) < 0.005
    assert abs(noise.mean()) < 0.01
    assert abs((noise.abs() < 0.3).float().mean() - math.erf(math.sqrt(0.5))) < 0.01


def test_scale_is_one_log_normal_factor_for_each_channel_of_a_sequence():
    x_BTI = series(4000, 5, 3)
    factors = changed(SeriesAugment(**{**QUIET, "scale": 0.2}), x_BTI)[0] / x_BTI
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-4, atol=0)
    logs = factors[:, 0].log()
    assert abs(logs.std() - 0.2) < 0.005
    assert abs(logs.mean()) < 0.01
    assert torch.corrcoef(logs.T).fill_diagonal_(0).abs().max() < 0.06


@pytest.mark.parametrize("drop", [0.3, 1.0])
def test_channels_are_dropped_whole_and_never_all(drop):
    x_BTI = series(5000, 4, 3)
    after, _ = changed(SeriesAugment(**QUIET, channel_drop=drop), x_BTI)
    kept_BC = (after != 0).all(dim=1)
    np.testing.assert_array_equal(after, np.where(kept_BC[:, None], x_BTI, 0))
    assert kept_BC.any(dim=1).all()
    # all three would be dropped with probability drop³; then one of them, drawn evenly, stays
    assert ((~kept_BC).float().mean(dim=0) - (drop - drop**3 / 3)).abs().max() < 0.02


def test_a_single_channel_is_never_dropped():
    x_BTI = series(50, 4, 1)
    assert torch.equal(changed(SeriesAugment(**QUIET, channel_drop=0.9), x_BTI)[0], x_BTI)


def test_values_alone_are_scaled_noisy_and_dropped_and_what_is_missing_stays_zero():
    x_BTI = with_gaps()
    restless = SeriesAugment(jitter=1, scale=1, time_warp=0, channel_drop=0.4)
    after, _ = changed(restless, x_BTI, values=3)
    assert torch.equal(after[..., 3:], x_BTI[..., 3:])
    x_BTC, seen_BTC, _ = parts_of(after)
    assert (x_BTC[seen_BTC == 0] == 0).all()
    assert (x_BTC != x_BTI[..., :3])[seen_BTC == 1].all()


def test_a_warp_takes_masks_of_the_nearest_step_and_joins_only_values_that_are_there():
    x_BTI = with_gaps()
    positions_BT = torch.linspace(0, 11, 29).expand(7, 29)
    after = augment._resampled(x_BTI, positions_BT, 3)
    for x_TI, after_TI in zip(x_BTI.tolist(), after.tolist(), strict=True):
        for position, after_I in zip(positions_BT[0].tolist(), after_TI, strict=True):
            before, behind = math.floor(position), math.ceil(position)
            nearest = x_TI[before if position - before < 0.5 else behind]
            assert after_I[3:] == nearest[3:]
            for c in range(3):
                expected = nearest[c]
                if x_TI[before][3 + c] and x_TI[behind][3 + c]:
                    expected = np.interp(position, (before, before + 1), (x_TI[before][c], x_TI[behind][c]))
                assert after_I[c] == pytest.approx(expected, abs=1e-5)


def test_hidden_steps_are_missing_ones_with_the_time_since_a_value_was_seen():
    x_BTI = with_gaps()
    torch.manual_seed(0)
    hidden_BT = SeriesAugment(time_mask=0.6)._draw_block(x_BTI, torch.full((7,), 12))
    after, _ = changed(SeriesAugment(**QUIET, time_mask=0.6), x_BTI, values=3)
    x_BTC, seen_BTC, since_BTC = parts_of(after)
    left_BTC = (x_BTI[..., 3:6] == 1) & ~hidden_BT[..., None]
    assert torch.equal(seen_BTC == 1, left_BTC)
    assert torch.equal(x_BTC, x_BTI[..., :3].where(left_BTC, 0))
    for b, t, c in np.ndindex(7, 12, 3):
        last = max((s for s in range(t + 1) if left_BTC[b, s, c]), default=0)
        assert since_BTC[b, t, c] == pytest.approx(math.log1p(t - last), abs=1e-6)


def test_time_since_seen_stays_as_it_was_where_nothing_is_hidden_before():
    x_BTI = with_gaps()
    x_BTI[..., 6:] *= 1.7  # of uneven steps
    hidden_BT = (torch.arange(12) == 7).expand(7, 12)
    since_BTC = parts_of(augment._masked(x_BTI, hidden_BT, 3))[2]
    assert torch.equal(since_BTC[:, :7], x_BTI[:, :7, 6:])
    seen_again_BTC = (x_BTI[:, 8:, 3:6] == 1).cummax(dim=1).values
    assert torch.equal(since_BTC[:, 8:][seen_again_BTC], x_BTI[:, 8:, 6:][seen_again_BTC])
