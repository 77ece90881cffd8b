"""Augmentation: every operation equals its definition restated in NumPy or SciPy, and keeps its promises."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rnnclf import augment
from rnnclf.augment import AUGMENTS, ImageAugment, NoAugment, SeriesAugment
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
STILL = {"shift": 0.0, "rotate": 0.0, "scale": 0.0, "shear": 0.0}
QUIET = {"jitter": 0.0, "scale": 0.0, "time_warp": 0.0}
STRONG = {
    "image": ImageAugment(shift=3, rotate=60, scale=0.4, shear=20, elastic=30, flip=0.5),
    "series": SeriesAugment(jitter=1, scale=0.5, time_warp=0.7, crop=0.4, time_mask=0.5, channel_drop=0.4),
}
each_strong = pytest.mark.parametrize("name", STRONG)
each_device = pytest.mark.parametrize("device", DEVICES)


class Rows:
    """Pictures of 6 rows and 9 columns, a row a step, with two colours."""

    height, width, colours = 6, 9, 2
    steps, size = height, width * colours

    def pictures(self, x_BTI):
        return x_BTI.reshape(-1, self.height, self.width, self.colours).permute(0, 3, 1, 2)

    def sequences(self, x_BCHW):
        return x_BCHW.permute(0, 2, 3, 1).reshape(-1, self.steps, self.size)


class Permuted(Rows):
    """The same pictures, a pixel a step, in an order of their own."""

    steps, size = Rows.height * Rows.width, Rows.colours
    order = torch.randperm(steps, generator=torch.Generator().manual_seed(0))

    def pictures(self, x_BTI):
        return super().pictures(x_BTI[:, self.order.argsort().to(x_BTI.device)])

    def sequences(self, x_BCHW):
        return super().sequences(x_BCHW)[:, self.order.to(x_BCHW.device)]


def pictures(b=5, height=6, width=9, colours=2):
    return torch.rand(b, colours, height, width, generator=torch.Generator().manual_seed(1)) + 0.1


def series(b=7, steps=12, size=3, seed=2):
    return torch.randn(b, steps, size, generator=torch.Generator().manual_seed(seed)) + 3


def with_gaps(b=7, steps=12, channels=3):
    """Values, masks and times since seen, of even steps; a third of the values are missing."""
    random = torch.Generator().manual_seed(3)
    seen_BTC = torch.rand(b, steps, channels, generator=random) > 0.33
    x_BTC = series(b, steps, channels).where(seen_BTC, 0)
    since_BTC = torch.zeros(b, steps, channels)
    for t in range(steps):
        earlier = since_BTC[:, t - 1] if t else -torch.ones(b, channels)
        since_BTC[:, t] = (earlier + 1).where(~seen_BTC[:, t], 0)
    return torch.cat((x_BTC, seen_BTC.float(), since_BTC.log1p()), dim=-1)


def changed(augmentation, x, lengths=None, layout=None, values=None, seed=0):
    torch.manual_seed(seed)
    return augmentation(x, lengths, layout, values=values)


def options():
    return [
        (name, option.name)
        for name, kind in AUGMENTS.items()
        for option in fields(kind)
        if option.name != "name"
    ]


# What holds for all


def test_none_gives_back_the_batch_itself():
    x_BTI, lengths_B = series(), torch.tensor([12, 3, 1, 5, 6, 7, 8])
    assert not NoAugment().active
    given_back = NoAugment()(x_BTI, lengths_B)
    assert given_back[0] is x_BTI
    assert given_back[1] is lengths_B


@pytest.mark.long
def test_without_strengths_nothing_is_active_and_nothing_changes():
    image, quiet = ImageAugment(**STILL), SeriesAugment(**QUIET)
    assert not image.active
    assert not quiet.active
    x_BTI, _ = changed(image, Rows().sequences(pictures()), layout=Rows())
    torch.testing.assert_close(x_BTI, Rows().sequences(pictures()), rtol=0, atol=1e-6)
    assert torch.equal(changed(quiet, series())[0], series())


OTHERWISE = {
    "image": {
        "shift": 2, "rotate": 40, "scale": 0.5, "shear": 30, "elastic": 30, "elastic_sigma": 2, "flip": 1
    },
    "series": {
        "jitter": 1, "scale": 1, "time_warp": 1, "crop": 0.3, "time_mask": 0.6, "channel_drop": 0.6
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "option"), options())
def test_every_option_alone_makes_active_and_changes_the_batch(name, option):
    strengths = {"image": STILL, "series": QUIET}[name]
    more = {"elastic": 20.0} if option == "elastic_sigma" else {}
    layout = Rows() if name == "image" else None
    x_BTI = Rows().sequences(pictures()) if name == "image" else series()
    usual = AUGMENTS[name](**{**strengths, **more})
    other = AUGMENTS[name](**{**strengths, **more, option: OTHERWISE[name][option]})
    assert other.active
    before, after = (changed(a, x_BTI, layout=layout)[0] for a in (usual, other))
    assert before.shape != after.shape or (before - after).abs().max() > 0.01


def batch_for(name, device="cpu"):
    if name == "image":
        return Rows().sequences(pictures()).to(device), None, Rows()
    return series().to(device), torch.tensor([12, 3, 1, 5, 6, 7, 2], device=device), None


@each_device
@each_strong
def test_type_and_device_are_kept_and_the_batch_is_left_alone(name, device):
    x_BTI, lengths_B, layout = batch_for(name, device)
    before = x_BTI.clone(), None if lengths_B is None else lengths_B.clone()
    after, after_lengths = changed(STRONG[name], x_BTI, lengths_B, layout)
    assert torch.equal(x_BTI, before[0])
    assert after.dtype == torch.float32
    assert after.device == x_BTI.device
    assert not after.requires_grad
    if lengths_B is not None:
        assert torch.equal(lengths_B, before[1])
        assert after_lengths.dtype == torch.int64
        assert after_lengths.device == x_BTI.device


@each_device
@each_strong
def test_a_seed_repeats_the_draws_and_the_next_batch_has_others(name, device):
    x_BTI, lengths_B, layout = batch_for(name, device)
    first, first_lengths = changed(STRONG[name], x_BTI, lengths_B, layout)
    after_first, _ = STRONG[name](x_BTI, lengths_B, layout)
    again, again_lengths = changed(STRONG[name], x_BTI, lengths_B, layout)
    assert torch.equal(first, again)
    assert (first_lengths is None and again_lengths is None) or torch.equal(first_lengths, again_lengths)
    assert first.shape != after_first.shape or not torch.equal(first, after_first)


@each_strong
def test_equal_sequences_of_one_batch_are_changed_differently(name):
    x_BTI, _, layout = batch_for(name)
    after, _ = changed(STRONG[name], x_BTI[:1].expand(5, -1, -1), None, layout)
    assert len({tuple(x_TI.flatten().tolist()) for x_TI in after}) == 5


@pytest.mark.parametrize(("name", "option"), options())
def test_options_out_of_range_are_refused_by_name(name, option):
    wrong = 0.0 if option in ("crop", "elastic_sigma") else -0.1
    with pytest.raises(ConfigError, match=rf"^{option} must be (at least|above) .*, got {wrong}\.$"):
        AUGMENTS[name](**{option: wrong})
    with pytest.raises(ConfigError, match=f"^{option} must be .*, got nan"):
        AUGMENTS[name](**{option: math.nan})


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("augment.crop=1.5", "augment.crop must be above 0 and at most 1, got 1.5"),
        ("augment.jiter=1", "augment=series has no option 'jiter'. Did you mean 'jitter'?"),
        ("augment.time_mask=1", "augment.time_mask must be at least 0 and below 1, got 1"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_told_with_its_key(word, words):
    with pytest.raises(ConfigError) as caught:
        load_config(["augment=series", word])
    assert words in str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize("name", AUGMENTS.names())
def test_each_can_be_chosen_by_name(name):
    assert load_config([f"augment={name}"]).augment == AUGMENTS[name]()
    assert load_config([]).augment == NoAugment()


# Pictures


def test_image_needs_pictures_and_the_others_do_not():
    with pytest.raises(ConfigError, match="augment=image changes pictures, and these data are none: choose"):
        ImageAugment().refuse_what_does_not_fit(None)
    ImageAugment().refuse_what_does_not_fit(Rows())
    SeriesAugment().refuse_what_does_not_fit(None)
    NoAugment().refuse_what_does_not_fit(None)


def sampled(x_BCHW, angle=0.0, slant=0.0, size=1.0, mirrored=False, shift=(0.0, 0.0)):
    """All pictures through one map, by the code under test."""
    b = len(x_BCHW)
    maps_B23 = augment._backward_maps(
        torch.full((b,), math.radians(angle)),
        torch.full((b,), math.radians(slant)),
        torch.full((b,), size),
        torch.full((b,), mirrored),
        torch.tensor(shift).expand(b, 2),
    )
    return augment._sampled(x_BCHW, augment._grid(maps_B23, *x_BCHW.shape[2:]))


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-4, 1), (5, -2)])
def test_a_shift_by_whole_pixels_rolls_zeros_in(right, down):
    x_BCHW = pictures()
    padded = np.pad(x_BCHW, ((0, 0), (0, 0), (6, 6), (9, 9)))
    expected = np.roll(padded, (down, right), axis=(2, 3))[:, :, 6:-6, 9:-9]
    after = sampled(x_BCHW, shift=(float(right), float(down)))
    np.testing.assert_allclose(after, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_those_of_numpy(quarters):
    x_BCHW = pictures(height=8, width=8)
    after = sampled(x_BCHW, angle=90.0 * quarters)
    np.testing.assert_allclose(after, np.rot90(x_BCHW, quarters, axes=(2, 3)), rtol=0, atol=5e-6)


def test_a_mirror_swaps_left_and_right():
    after = sampled(pictures(), mirrored=True)
    np.testing.assert_allclose(after, np.flip(pictures().numpy(), axis=3), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "moves",
    [
        {"angle": 17.0},
        {"slant": 25.0},
        {"size": 1.3},
        {"size": 0.6},
        {"shift": (1.25, -0.6)},
        {"angle": -31.0, "slant": 12.0, "size": 0.85, "mirrored": True, "shift": (-0.7, 1.4)},
    ],
    ids=str,
)
def test_a_map_equals_that_of_scipy(moves):
    x_BCHW = pictures()
    angle, slant = (math.radians(moves.get(key, 0.0)) for key in ("angle", "slant"))
    mirror = np.diag([-1.0 if moves.get("mirrored") else 1.0, 1.0])
    lean = np.array([[1.0, math.tan(slant)], [0.0, 1.0]])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = turn @ lean @ (moves.get("size", 1.0) * mirror)  # of (right, down), from the centre
    backward = np.linalg.inv(forward)[::-1, ::-1]  # of (row, column)
    centre, shift = np.array([2.5, 4.0]), np.array(moves.get("shift", (0.0, 0.0)))[::-1]
    offset = centre - backward @ (centre + shift)
    expected = [
        [ndimage.affine_transform(x_HW, backward, offset, order=1, mode="grid-constant") for x_HW in x_CHW]
        for x_CHW in x_BCHW.numpy().astype(np.float64)
    ]
    np.testing.assert_allclose(sampled(x_BCHW, **moves), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.0, 50.0])
def test_the_field_is_smoothed_by_a_gaussian(sigma):
    noise = torch.rand(2, 2, 6, 9, generator=torch.Generator().manual_seed(4)) * 2 - 1
    expected = np.empty(noise.shape)
    for place in np.ndindex(2, 2):
        smoothed, weight = (
            ndimage.gaussian_filter(part, sigma, mode="constant", radius=9)
            for part in (noise[place].numpy().astype(np.float64), np.ones((6, 9)))
        )
        expected[place] = smoothed / weight
    np.testing.assert_allclose(augment._smoothed(noise, sigma), expected, rtol=0, atol=1e-6)


def test_elastic_samples_each_pixel_beside_its_place():
    x_BCHW = pictures()
    bent = ImageAugment(**STILL, elastic=20, elastic_sigma=2)
    torch.manual_seed(0)
    field_BHW2 = bent._drawn_field(x_BCHW)
    torch.manual_seed(0)
    noise_B2HW = torch.empty(len(x_BCHW), 2, 6, 9).uniform_(-1, 1)
    pixels_B2HW = 20 * augment._smoothed(noise_B2HW, 2).numpy().astype(np.float64)
    still_B23 = torch.eye(2, 3).expand(len(x_BCHW), 2, 3)
    after = augment._sampled(x_BCHW, augment._grid(still_B23, 6, 9) + field_BHW2)
    rows, columns = np.mgrid[:6, :9]
    for x_CHW, (right, down), after_CHW in zip(x_BCHW, pixels_B2HW, after, strict=True):
        for x_HW, after_HW in zip(x_CHW, after_CHW, strict=True):
            expected = ndimage.map_coordinates(
                x_HW.numpy().astype(np.float64), (rows + down, columns + right), order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(after_HW, expected, rtol=0, atol=1e-5)


def maps_drawn(**strengths):
    torch.manual_seed(0)
    maps_B23 = ImageAugment(**{**STILL, **strengths})._drawn_maps(torch.empty(20_000, 1, 6, 9))
    return maps_B23.double().numpy()


def assert_even(draws, low, high):
    """Spread evenly from `low` to `high`: by its ends, its mean and its deviation."""
    width = high - low
    assert low <= draws.min() < low + 0.01 * width
    assert high - 0.01 * width < draws.max() <= high
    assert abs(draws.mean() - (low + high) / 2) < 0.01 * width
    assert abs(draws.std() - width / math.sqrt(12)) < 0.01 * width


def test_shifts_are_drawn_evenly_to_all_sides():
    maps_B23 = maps_drawn(shift=3)
    np.testing.assert_allclose(maps_B23[:, :, :2], np.broadcast_to(np.eye(2), (20_000, 2, 2)))
    assert_even(maps_B23[:, 0, 2], -3, 3)
    assert_even(maps_B23[:, 1, 2], -3, 3)
    assert abs(np.corrcoef(maps_B23[:, 0, 2], maps_B23[:, 1, 2])[0, 1]) < 0.03


def test_angles_slants_and_sizes_are_drawn_evenly():
    turned = maps_drawn(rotate=30)
    assert_even(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])), -30.001, 30.001)
    assert_even(np.degrees(np.arctan(maps_drawn(shear=20)[:, 0, 1])), -20.001, 20.001)
    assert_even(1 / maps_drawn(scale=0.25)[:, 1, 1], 0.749999, 1.250001)


def test_the_draws_of_a_picture_are_independent():
    maps_B23 = maps_drawn(rotate=30, shear=20, scale=0.25, shift=3)
    sizes_B = 1 / np.hypot(maps_B23[:, 1, 0], maps_B23[:, 1, 1])
    angles_B = np.arctan2(maps_B23[:, 1, 0], maps_B23[:, 1, 1])
    # the backward map's first row is (cos, -sin) less (sin, cos) times the slope, all by the size
    slopes_B = -(maps_B23[:, 0, :2] * maps_B23[:, 1, :2]).sum(axis=1) * sizes_B**2
    shifts_B2 = -np.linalg.solve(maps_B23[:, :, :2], maps_B23[:, :, 2:])[..., 0]
    draws_5B = np.stack((angles_B / math.radians(30), slopes_B, sizes_B, *shifts_B2.T))
    assert_even(draws_5B[0], -1.00001, 1.00001)
    assert_even(draws_5B[3], -3.0001, 3.0001)
    np.testing.assert_allclose(np.corrcoef(draws_5B), np.eye(5), rtol=0, atol=0.03)


def test_a_mirror_image_is_as_frequent_as_asked():
    assert abs((maps_drawn(flip=0.3)[:, 0, 0] == -1).mean() - 0.3) < 0.01


@pytest.mark.parametrize("kind", [Rows, Permuted])
def test_pictures_are_changed_as_pictures_however_they_lie_in_a_sequence(kind):
    layout = kind()
    mirror = ImageAugment(**STILL, flip=1)
    x_BTI, lengths_B = changed(mirror, layout.sequences(pictures()), layout=layout)
    assert lengths_B is None
    torch.testing.assert_close(layout.pictures(x_BTI), pictures().flip(-1), rtol=0, atol=2e-6)


def test_features_that_are_no_values_stay_beside_the_pictures():
    x_BTI = Rows().sequences(pictures())
    more = torch.cat((x_BTI, torch.ones_like(x_BTI), torch.zeros_like(x_BTI)), dim=-1)
    after, _ = changed(STRONG["image"], more, layout=Rows(), values=Rows.size)
    alone, _ = changed(STRONG["image"], x_BTI, layout=Rows())
    assert torch.equal(after[..., : Rows.size], alone)
    assert torch.equal(after[..., Rows.size :], more[..., Rows.size :])


# Series: along time


def test_even_speed_is_no_warp():
    share_BT = torch.linspace(0, 1, 50).expand(3, 50)
    travelled = augment._travelled(torch.full((3, 6), 0.7), share_BT)
    torch.testing.assert_close(travelled, share_BT, rtol=0, atol=1e-6)


def test_the_way_is_the_integral_of_the_speed():
    speeds_BK = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)) + 0.1
    share_BT = torch.linspace(0, 1, 23).expand(4, 23)
    fine = np.linspace(0, 1, 22 * 1000 + 1)
    for speeds_K, way_T in zip(speeds_BK.numpy(), augment._travelled(speeds_BK, share_BT), strict=True):
        speed = np.interp(fine, np.linspace(0, 1, 6), speeds_K)
        way = np.concatenate(([0], np.cumsum((speed[1:] + speed[:-1]) / 2)))
        np.testing.assert_allclose(way_T, (way / way[-1])[::1000], rtol=0, atol=1e-6)


def test_the_way_never_leads_beyond_its_end():
    speeds_BK = torch.tensor(
        [[1.41, 0.187, 661483.8, 4.2, 2e-6, 2e-12], [1e6, 1e-3, 1e-5, 2e-2, 5e-7, 5e-13]]
    )
    travelled = augment._travelled(speeds_BK, torch.linspace(0, 1, 2000).expand(2, 2000))
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
    first_B, kept_B = along._drawn_windows(x_BTI, lengths_B)
    assert ((kept_B >= 1) & (kept_B >= (crop * lengths_B).floor())).all()
    assert ((first_B >= 0) & (first_B + kept_B <= lengths_B)).all()
    positions_BT = along._drawn_positions(x_BTI, first_B, kept_B)
    assert positions_BT.shape[1] == (kept_B.max() if crop < 1 else x_BTI.shape[1])
    for positions_T, first, kept in zip(positions_BT, first_B, kept_B, strict=True):
        assert positions_T[0] == first or kept == 1
        assert (positions_T[kept - 1 :] == first + kept - 1).all()
        assert (positions_T.diff() >= 0).all()


def test_a_warped_series_is_that_of_np_interp():
    x_BTI, lengths_B = series(), torch.tensor([12, 3, 1, 5, 6, 7, 2])
    warp = SeriesAugment(**{**QUIET, "time_warp": 0.5}, crop=0.5)
    torch.manual_seed(0)
    windows = warp._drawn_windows(x_BTI, lengths_B)
    positions_BT = warp._drawn_positions(x_BTI, *windows)
    after, kept_B = changed(warp, x_BTI, lengths_B)
    assert torch.equal(kept_B, windows[1])
    for x_TI, positions_T, after_TI in zip(x_BTI, positions_BT, after, strict=True):
        for x_T, after_T in zip(x_TI.T, after_TI.T, strict=True):
            np.testing.assert_allclose(after_T, np.interp(positions_T, range(12), x_T), rtol=0, atol=1e-5)


def test_the_speed_of_a_warp_is_about_as_strong_as_asked():
    along = SeriesAugment(**{**QUIET, "time_warp": 0.2})
    torch.manual_seed(0)
    x_BTI, lengths_B = torch.empty(5000, 501, 1), torch.full((5000,), 501)
    positions_BT = along._drawn_positions(x_BTI, torch.zeros_like(lengths_B), lengths_B)
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
    assert augment._whole(torch.tensor([0.0, 0.999, 1.0, 1.0]), torch.tensor([5, 5, 5, 0])).tolist() == [
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
    hidden_BT = SeriesAugment(time_mask=0.55)._drawn_block(torch.empty(6000, 12, 1), lengths_B)
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
    hidden_BT = SeriesAugment(time_mask=0.6)._drawn_block(x_BTI, torch.full((7,), 12))
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


# Series: missing values


def parts_of(x_BTI):
    return x_BTI.chunk(3, dim=-1)


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
    hidden_BT = SeriesAugment(time_mask=0.6)._drawn_block(x_BTI, torch.full((7,), 12))
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
    since_BTC = parts_of(augment._hidden(x_BTI, hidden_BT, 3))[2]
    assert torch.equal(since_BTC[:, :7], x_BTI[:, :7, 6:])
    seen_again_BTC = (x_BTI[:, 8:, 3:6] == 1).cummax(dim=1).values
    assert torch.equal(since_BTC[:, 8:][seen_again_BTC], x_BTI[:, 8:, 6:][seen_again_BTC])


# Series: ragged


@pytest.mark.parametrize("values", [None, 3])
def test_what_lies_behind_the_end_has_no_influence(values):
    x_BTI = series() if values is None else with_gaps()
    lengths_B = torch.tensor([12, 3, 1, 5, 6, 7, 2])
    behind_BT = torch.arange(12) >= lengths_B[:, None]
    other_BTI = x_BTI.masked_fill(behind_BT[..., None], math.nan)
    usual, lengths_after = changed(STRONG["series"], x_BTI, lengths_B, values=values)
    other, other_lengths = changed(STRONG["series"], other_BTI, lengths_B, values=values)
    assert torch.equal(lengths_after, other_lengths)
    for usual_TI, other_TI, length in zip(usual, other, lengths_after, strict=True):
        assert torch.equal(usual_TI[:length], other_TI[:length])
        assert usual_TI[:length].isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=6),
    whole=st.booleans(),
    masked=st.booleans(),
    strengths=st.fixed_dictionaries(
        {
            "jitter": st.floats(0, 10),
            "scale": st.floats(0, 3),
            "time_warp": st.floats(0, 1),
            "crop": st.floats(0, 1, exclude_min=True),
            "time_mask": st.floats(0, 1, exclude_max=True),
            "channel_drop": st.floats(0, 1),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_any_strengths_give_finite_sequences_of_valid_lengths(lengths, whole, masked, strengths, seed):
    b, steps = len(lengths), max(lengths)
    x_BTI = with_gaps(b, steps, 2) if masked else series(b, steps, 2)
    lengths_B = None if whole else torch.tensor(lengths)
    augmentation = SeriesAugment(**strengths)
    after, after_lengths = changed(augmentation, x_BTI, lengths_B, values=2 if masked else None, seed=seed)
    assert after.dtype == torch.float32
    assert after.isfinite().all()
    assert after.shape[::2] == x_BTI.shape[::2]
    if strengths["crop"] == 1:
        assert after_lengths is lengths_B
    else:
        ends = torch.full((b,), steps) if whole else lengths_B
        assert ((after_lengths >= 1) & (after_lengths <= ends)).all()
        assert after.shape[1] == after_lengths.max()
    if masked:
        x_BTC, seen_BTC, since_BTC = parts_of(after)
        assert set(seen_BTC.unique().tolist()) <= {0.0, 1.0}
        assert (x_BTC[seen_BTC == 0] == 0).all()
        assert (since_BTC >= 0).all()
