"""Augmentation: every operation equals its definition restated in NumPy or SciPy, and keeps its promises."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.augment import AUGMENTS, Augment, ImageAugment, NoAugment, SeriesAugment
from rnnclf.data.dataset import Batch
from rnnclf.data.patches import side_by_side
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.optim import Adam, Constant
from rnnclf.training.recipe import Recipe
from tests.augmented import QUIET, STILL, STRONG, Rows, changed, parts_of, pictures, series, with_gaps

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
each_strong = pytest.mark.parametrize("name", STRONG)
each_device = pytest.mark.parametrize("device", DEVICES)


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
        "shift": 2, "rotate": 40, "scale": 0.5, "shear": 30, "elastic": 30, "elastic_sigma": 2, "flip": 1,
        "share": 0.3,
    },
    "series": {
        "jitter": 1, "scale": 1, "time_warp": 1, "crop": 0.3, "time_mask": 0.6, "channel_drop": 0.6,
        "share": 0.3,
    },
}  # fmt: skip


BESIDE = {
    ("image", "elastic_sigma"): {"elastic": 20.0},
    ("image", "share"): {"flip": 1.0},
    ("series", "share"): {"jitter": 1.0},
}
"""What an option needs to have an effect."""


@pytest.mark.parametrize(("name", "option"), options())
def test_every_option_alone_makes_active_and_changes_the_batch(name, option):
    strengths = {"image": STILL, "series": QUIET}[name]
    more = BESIDE.get((name, option), {})
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


@each_strong
@pytest.mark.parametrize("lengths", [None, [12, 3, 1, 5, 6, 7, 2]])
def test_the_share_that_is_not_changed_stays_as_it_is_and_the_rest_is_what_it_would_be(name, lengths):
    x_BTI, layout, lengths_B = series(), None, None if lengths is None else torch.tensor(lengths)
    if name == "image":
        x_BTI, layout, lengths_B = Rows().sequences(pictures(7)), Rows(), None
    every, every_length = changed(STRONG[name], x_BTI, lengths_B, layout)
    some, some_length = changed(replace(STRONG[name], share=0.5), x_BTI, lengths_B, layout)

    def steps(x_BTI, lengths_B):
        lengths = [x_BTI.shape[1]] * len(x_BTI) if lengths_B is None else lengths_B.tolist()
        return [tuple(x_TI[:t].flatten().tolist()) for x_TI, t in zip(x_BTI, lengths, strict=True)]

    before, after, found = steps(x_BTI, lengths_B), steps(every, every_length), steps(some, some_length)
    kept = [f == b for f, b in zip(found, before, strict=True)]
    assert 0 < sum(kept) < len(kept)
    assert all(k or f == a for k, f, a in zip(kept, found, after, strict=True))


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_the_share_is_drawn_anew_for_each_batch(share):
    flip = ImageAugment(**STILL, flip=1, share=share)
    x_BTI = Rows().sequences(pictures(2000))
    torch.manual_seed(0)
    moved_2B = torch.stack([(flip(x_BTI, None, Rows())[0] != x_BTI).flatten(1).any(1) for _ in range(2)])
    assert moved_2B.float().mean(1).tolist() == pytest.approx([share, share], abs=0.04)
    both = moved_2B.all(0).float().mean().item()
    assert both == pytest.approx(share**2, abs=0.04)  # independent of each other


KEEPERS = [NoAugment(), ImageAugment(), STRONG["image"], SeriesAugment(), replace(STRONG["series"], crop=1.0)]


@pytest.mark.parametrize("augmentation", KEEPERS, ids=str)
@pytest.mark.parametrize("lengths", [None, [12, 3, 1, 5, 6, 7, 8]])
def test_one_that_keeps_lengths_keeps_them_all(augmentation, lengths):
    assert augmentation.keeps_lengths
    lengths_B = None if lengths is None else torch.tensor(lengths)
    x_BTI, layout = series(), None
    if isinstance(augmentation, ImageAugment):
        x_BTI, layout = Rows().sequences(pictures(7)), Rows()
    after, after_lengths = changed(augmentation, x_BTI, lengths_B, layout)
    assert after_lengths is lengths_B
    assert after.shape == x_BTI.shape


def test_a_crop_keeps_no_lengths_and_an_augmentation_of_ones_own_need_not_say():
    assert not replace(SeriesAugment(), crop=0.9).keeps_lengths
    assert not Augment().keeps_lengths


@pytest.mark.parametrize(("name", "option"), options())
def test_options_out_of_range_are_refused_by_name(name, option):
    wrong = 0.0 if option in ("share", "crop", "elastic_sigma") else -0.1
    with pytest.raises(ConfigError, match=rf"^{option} must be (at least|above) .*, got {wrong}\.$"):
        AUGMENTS[name](**{option: wrong})
    with pytest.raises(ConfigError, match=f"^{option} must be .*, got nan"):
        AUGMENTS[name](**{option: math.nan})


@pytest.mark.long
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
    with pytest.raises(
        ConfigError, match="augment=image needs pictures, and these data are not pictures: choose"
    ):
        ImageAugment().check_layout(None)
    ImageAugment().check_layout(Rows())
    SeriesAugment().check_layout(None)
    NoAugment().check_layout(None)


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
            "share": st.sampled_from([0.5, 1.0]),
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


@pytest.mark.parametrize("values", [None, 3])
@pytest.mark.parametrize("codes", [0, 2])
@pytest.mark.parametrize("crop", [1.0, 0.4])
def test_patches_are_augmented_step_by_step(values, codes, crop):
    augmentation = SeriesAugment(jitter=1, scale=0.5, time_warp=0.7, crop=crop)
    numbers_BTI = with_gaps() if values else series()
    features, y_B = 3 if values else 1, torch.zeros(len(numbers_BTI), dtype=torch.int64)
    steps_BTI = torch.cat((numbers_BTI, torch.arange(12.0).view(12, 1).expand(7, 12, codes)), dim=-1)
    whole_B = torch.full_like(y_B, steps_BTI.shape[1])

    def patched(x_BTI, lengths_B):
        numbers, names = x_BTI.tensor_split((x_BTI.shape[2] - codes,), dim=-1)
        parts = (numbers.unflatten(2, (features, -1)), names.unsqueeze(2))
        return torch.cat([side_by_side(part, lengths_B, 4) for part in parts], dim=-1)

    plan = Recipe(1, 8, Adam(), Constant(), augment=augmentation, patch=4, codes=4 * codes)
    plan = replace(plan, values=values and 4 * values)
    torch.manual_seed(0)
    found = plan.augmented(Batch(patched(steps_BTI, whole_B), y_B, None))
    torch.manual_seed(0)
    x_BTI, lengths_B = augmentation(steps_BTI, None, values=values, codes=codes)
    assert torch.equal(found.x_BTI, patched(x_BTI, whole_B if lengths_B is None else lengths_B))
    assert (found.lengths_B is None) == (lengths_B is None)
    if lengths_B is not None:
        assert found.lengths_B.tolist() == [math.ceil(length / 4) for length in lengths_B.tolist()]
