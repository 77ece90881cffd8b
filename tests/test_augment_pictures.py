"""Augmentation of pictures equals its definition restated in NumPy or SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from rnnclf import warping
from rnnclf.augment import ImageAugment
from rnnclf.data.layout import PictureLayout
from tests.augmented import STILL, STRONG, Rows, changed, pictures


class Permuted(Rows):
    """The same pictures, a pixel a step, in an order of their own."""

    steps, size = Rows.height * Rows.width, Rows.colours
    order = torch.randperm(steps, generator=torch.Generator().manual_seed(0))

    def pictures(self, x_BTI):
        return super().pictures(x_BTI[:, self.order.argsort().to(x_BTI.device)])

    def sequences(self, x_BCHW):
        return super().sequences(x_BCHW)[:, self.order.to(x_BCHW.device)]


def sampled(x_BCHW, angle=0.0, slant=0.0, size=1.0, mirrored=False, shift=(0.0, 0.0)):
    """All pictures through one map, by the code under test."""
    b = len(x_BCHW)
    maps_B23 = warping.backward_maps(
        torch.full((b,), math.radians(angle)),
        torch.full((b,), math.radians(slant)),
        torch.full((b,), size),
        torch.full((b,), mirrored),
        torch.tensor(shift).unsqueeze(-1).expand(2, b),
    )
    return warping.sampled(x_BCHW, warping.grid(maps_B23, *x_BCHW.shape[2:]))


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
    noise_HBCW = torch.rand(6, 2, 2, 9, generator=torch.Generator().manual_seed(4)) * 2 - 1
    expected = np.empty(noise_HBCW.shape)
    for place in np.ndindex(2, 2):
        picture = slice(None), *place, slice(None)
        smoothed, weight = (
            ndimage.gaussian_filter(part, sigma, mode="constant", radius=9)
            for part in (noise_HBCW[picture].numpy().astype(np.float64), np.ones((6, 9)))
        )
        expected[picture] = smoothed / weight
    np.testing.assert_allclose(warping.smoothed(noise_HBCW, sigma), expected, rtol=0, atol=1e-6)


def test_elastic_samples_each_pixel_beside_its_place():
    x_BCHW = pictures()
    b = len(x_BCHW)
    bent = ImageAugment(**STILL, elastic=20, elastic_sigma=2)
    torch.manual_seed(0)
    field_B2HW = bent._draw_field(x_BCHW)
    torch.manual_seed(0)
    noise_HB2W = warping.noise((6, b, 2, 9), torch.ones(2, 1))
    pixels_B2HW = 20 * warping.smoothed(noise_HB2W, 2).numpy().transpose(1, 2, 0, 3).astype(np.float64)
    still_B23 = torch.eye(2, 3).expand(b, 2, 3)
    after = warping.sampled(x_BCHW, warping.grid(still_B23, 6, 9) + field_B2HW)
    rows, columns = np.mgrid[:6, :9]
    for x_CHW, (right, down), after_CHW in zip(x_BCHW, pixels_B2HW, after, strict=True):
        for x_HW, after_HW in zip(x_CHW, after_CHW, strict=True):
            expected = ndimage.map_coordinates(
                x_HW.numpy().astype(np.float64), (rows + down, columns + right), order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(after_HW, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 50, 2, 51), (1, 1, 2, 3)])
def test_noise_is_spread_evenly_between_its_bounds(shape, dtype):
    torch.manual_seed(0)
    noise = warping.noise(shape, torch.tensor(((2.0,), (5.0,)), dtype=dtype))
    assert noise.shape == shape
    assert noise.dtype == dtype
    if math.prod(shape) > 1000:
        assert_even(noise[..., 0, :], -2, 2)
        assert_even(noise[..., 1, :], -5, 5)


def test_the_noise_of_a_picture_is_independent_from_pixel_to_pixel():
    torch.manual_seed(0)
    noise_BP = warping.noise((20_000, 2, 4), torch.ones(2, 1)).flatten(1)
    np.testing.assert_allclose(np.corrcoef(noise_BP.numpy().T), np.eye(8), rtol=0, atol=0.03)


@pytest.mark.parametrize(("height", "width"), [(6, 9), (28, 28), (1, 1)])
def test_a_grid_is_that_of_torch(height, width):
    maps_B23 = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    shares = torch.tensor(((1, height / width, 2 / width), (width / height, 1, 2 / height)))
    expected = functional.affine_grid(maps_B23 * shares.double(), [5, 1, height, width], align_corners=False)
    for dtype, error in ((torch.float32, 1e-5), (torch.float64, 1e-6)):
        grid_B2HW = warping.grid(maps_B23.to(dtype), height, width)
        assert grid_B2HW.dtype == dtype
        np.testing.assert_allclose(grid_B2HW.movedim(1, -1), expected, rtol=0, atol=error)


def maps_drawn(**strengths):
    torch.manual_seed(0)
    maps_B23 = ImageAugment(**{**STILL, **strengths})._draw_maps(torch.empty(20_000, 1, 6, 9))
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


LAYOUTS = {
    "rows": {},
    "columns": {"sequence": "columns"},
    "patches": {"sequence": "patches", "patch": 2},
    "pixels": {"sequence": "pixels"},
    "permuted pixels": {"sequence": "pixels", "permutation": "seed:0"},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_augmented_pictures(name, colours, dtype):
    layout = PictureLayout(6, 8, colours, **LAYOUTS[name])
    x_BCHW = pictures(width=8, colours=colours).to(dtype)
    torch.manual_seed(0)
    image = STRONG["image"]
    grid_B2HW = warping.grid(image._draw_maps(x_BCHW), 6, 8) + image._draw_field(x_BCHW)
    after, _ = changed(image, layout.sequences(x_BCHW), layout=layout)
    assert after.dtype == dtype
    assert torch.equal(layout.pictures(after), warping.sampled(x_BCHW, grid_B2HW))


@pytest.mark.parametrize("name", LAYOUTS)
def test_sequences_are_copied_only_where_their_order_differs_from_that_of_the_picture(name):
    layout = PictureLayout(6, 8, 1, **LAYOUTS[name])
    x_BTI = layout.sequences(pictures(width=8, colours=1))
    shares_memory = layout.pictures(x_BTI).data_ptr() == x_BTI.data_ptr()
    assert shares_memory == (name in ("rows", "pixels"))


def test_features_that_are_no_values_stay_beside_the_pictures():
    x_BTI = Rows().sequences(pictures())
    more = torch.cat((x_BTI, torch.ones_like(x_BTI), torch.zeros_like(x_BTI)), dim=-1)
    after, _ = changed(STRONG["image"], more, layout=Rows(), values=Rows.size)
    alone, _ = changed(STRONG["image"], x_BTI, layout=Rows())
    assert torch.equal(after[..., : Rows.size], alone)
    assert torch.equal(after[..., Rows.size :], more[..., Rows.size :])
