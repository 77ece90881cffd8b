"""Pictures as sequences: how they lie there, where their files are found, what is said of damaged ones."""

from __future__ import annotations

import hashlib
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch

from rnnclf.data import SPLITS
from rnnclf.data.images import (
    CIFAR10,
    EMNIST,
    MNIST,
    QMNIST,
    Digits,
)
from rnnclf.data.images.base import grey
from rnnclf.data.layout import PictureLayout
from rnnclf.data.permutations import permutation
from rnnclf.data.recordings import silent
from rnnclf.errors import ConfigError
from tests.data.pictures import (
    PUBLISHED,
    _offline,  # noqa: F401 - a fixture
    by_loops,
    drawn,
)

ALL = (*PUBLISHED, Digits)


LAYOUTS = [
    ("rows", 4, "none"),
    ("columns", 4, "none"),
    ("pixels", 4, "none"),
    ("pixels", 4, "bitrev"),
    ("pixels", 4, "seed:3"),
    ("patches", 2, "none"),
    ("patches", 1, "none"),
]


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("sequence", "patch", "order"), LAYOUTS)
def test_a_sequence_holds_the_values_that_loops_over_its_picture_find(sequence, patch, order, colours):
    x_NHWC = drawn(5, 4, 6, colours)
    layout = PictureLayout(4, 6, colours, sequence, patch, order)
    places = permutation(order, 24)
    expected = [by_loops(x, sequence, patch, None if places is None else places.tolist()) for x in x_NHWC]
    steps = layout.steps_of(x_NHWC)
    assert steps.dtype == np.uint8
    assert steps.reshape(5, -1, steps.shape[1]).tolist() == expected


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("sequence", "patch", "order"), LAYOUTS)
def test_pictures_and_sequences_are_inverses_and_agree_with_what_is_read(sequence, patch, order, colours):
    x_NHWC = drawn(5, 4, 6, colours)
    layout = PictureLayout(4, 6, colours, sequence, patch, order)
    x_BTI = torch.from_numpy(layout.steps_of(x_NHWC).copy()).view(5, *layout.places_TI.shape).float()
    x_BCHW = layout.pictures(x_BTI)
    assert torch.equal(x_BCHW, torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).float())
    assert torch.equal(layout.sequences(x_BCHW), x_BTI)


def test_grey_is_pillows():
    from PIL import Image

    x_NHWC = np.concatenate((drawn(4, 64, 64, 3), np.repeat(drawn(1, 64, 64, 1, seed=1), 3, axis=3)))
    expected = np.stack([np.asarray(Image.fromarray(x).convert("L")) for x in x_NHWC])
    assert np.array_equal(grey(x_NHWC)[..., 0], expected)


def test_many_pictures_are_made_grey_like_one():
    x_NHWC = drawn(4100, 2, 2, 3)  # more than are converted at a time
    one_by_one = np.concatenate([grey(x_NHWC[n : n + 1]) for n in (0, 4095, 4096, 4099)])
    assert np.array_equal(grey(x_NHWC)[[0, 4095, 4096, 4099]], one_by_one)


# --- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sequence": "diagonals"}, r"dataset|sequence must be rows, columns, pixels or patches"),
        (
            {"permutation": "bitrev"},
            r"dataset\.permutation reorders pixels: it needs dataset\.sequence=pixels",
        ),
        ({"sequence": "patches", "permutation": "seed:1"}, r"dataset\.permutation reorders pixels"),
        ({"sequence": "pixels", "permutation": "random"}, r"dataset\.permutation must be none, bitrev"),
        ({"patch": 2}, r"dataset\.patch=2 has no effect without dataset\.sequence=patches"),
        (
            {"sequence": "patches", "patch": 5},
            r"must divide the height and width of the pictures, \d+ × \d+, got 5",
        ),
        ({"sequence": "patches", "patch": 0}, r"patch must be at least 1, got 0"),
        ({"missing": "mask"}, r"dataset\.missing=mask has no effect: pictures have no missing values"),
    ],
)
@pytest.mark.parametrize("kind", ALL)
def test_options_that_do_not_go_together_are_refused(kind, options, words):
    with pytest.raises(ConfigError, match=words):
        kind(**options)


@pytest.mark.parametrize("kind", ALL)
def test_each_source_has_its_name_a_summary_and_a_layout_of_its_pictures(kind):
    source = kind()
    assert source.name == kind.name
    assert "steps of" in kind.__doc__
    height, width, colours = kind.shape
    assert source.layout() == PictureLayout(height, width, colours)
    assert source.layout().places_TI.shape == (height, width * colours)


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (MNIST(), "mnist"),
        (MNIST(sequence="pixels", permutation="bitrev"), "mnist pixels, bitrev"),
        (Digits(sequence="patches"), "digits patches of 4"),
        (CIFAR10(sequence="pixels", colour="grey"), "cifar10 pixels, grey"),
        (EMNIST(variant="letters", sequence="columns"), "emnist letters columns"),
    ],
)
def test_a_label_says_what_is_not_the_default(source, label):
    assert source.title() == label


def test_a_reading_tells_everything_that_changes_a_step():
    readings = [
        CIFAR10().reading(),
        CIFAR10(sequence="columns").reading(),
        CIFAR10(sequence="pixels").reading(),
        CIFAR10(sequence="pixels", colour="grey").reading(),
        CIFAR10(sequence="pixels", permutation="bitrev").reading(),
        CIFAR10(sequence="pixels", permutation="seed:1").reading(),
        CIFAR10(sequence="patches").reading(),
        CIFAR10(sequence="patches", patch=8).reading(),
    ]
    assert len({tuple(reading.values()) for reading in readings}) == len(readings)
    assert MNIST(split="random").reading() == MNIST().reading() == QMNIST().reading()


def test_a_reading_holds_the_hash_of_its_permutation():
    order = np.random.RandomState(5).permutation(64).astype("<i8")
    reading = Digits(sequence="pixels", permutation="seed:5").reading()
    assert reading["permutation_sha256"] == hashlib.sha256(order.tobytes()).hexdigest()
    assert Digits().reading()["permutation_sha256"] is None


# --- digits


def test_digits_are_what_scikit_learn_ships():
    from sklearn.datasets import load_digits

    bunch, recordings = load_digits(), Digits().read()
    assert recordings.values_SC.dtype == np.uint8
    assert np.array_equal(recordings.values_SC.reshape(1797, 8, 8), bunch.images)
    assert np.array_equal(recordings.labels_N, bunch.target)
    assert recordings.unit == 16
    x = Digits().load().train.batch(torch.arange(1257)).x_BTI
    assert (x.min(), x.max()) == (0, 1)


def test_digits_are_read_by_scikit_learn_itself_where_their_file_lies_elsewhere(monkeypatch, tmp_path):
    pictures = Digits().load_pictures(silent)
    elsewhere = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("rnnclf.data.images.digits.find_spec", lambda name: elsewhere)
    for ours, theirs in zip(pictures[:2], Digits().load_pictures(silent)[:2], strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_the_published_splits_of_the_digits_stay_what_they_are():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    rest, test = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=bunch.target)
    train, validation = train_test_split(rest, test_size=180, random_state=0, stratify=bunch.target[rest])
    splits = Digits().load()
    for name, places in zip(SPLITS, (train, validation, test), strict=True):
        batch = splits[name].batch(torch.arange(len(places)))
        assert torch.equal(batch.x_BTI, torch.from_numpy(bunch.images[places]).float() / 16)
        assert batch.y_B.tolist() == bunch.target[places].tolist()


@pytest.mark.parametrize("options", [{"validation": 1433}, {"validation": 5}, {"test": 1793}])
def test_a_split_without_room_for_each_class_is_refused(options):
    ((what, count),) = options.items()
    with pytest.raises(ConfigError, match=rf"^{count:,} of .* the {what} split.*dataset\.{what} to"):
        Digits(**options).load()


def test_another_split_seed_gives_another_split_of_the_same_data():
    a, b = Digits(split_seed=0).load(), Digits(split_seed=1).load()
    assert not torch.equal(a.test.y_N, b.test.y_N)
    assert a.fingerprint == b.fingerprint
