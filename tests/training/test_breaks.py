"""Breaks of training: which curves have one, and what is said of it."""

import pytest

from rnnclf.metrics import Score
from rnnclf.training.breaks import breaks_in, in_words
from rnnclf.training.gradient_norms import GradientNorms
from rnnclf.training.loop import EpochResult

TRAIN, VALIDATION = 55_000, 5_000
CLIMB = [0.60, 0.80, 0.90, 0.94, 0.96, 0.97]
BROKEN = [*CLIMB, 0.88]


def curve(train, validation=None, sizes=(TRAIN, VALIDATION), spikes=(), rates=None):
    """Epochs with these accuracies, whose losses fall as they rise. spikes: epochs with large gradients."""
    pairs = zip(train, validation or train, strict=True)
    return [
        EpochResult(
            epoch,
            *(Score(round(share * n), n, 2.3 * (1 - share)) for share, n in zip(pair, sizes, strict=True)),
            learning_rate=rates[epoch - 1] if rates else 0.003,
            seconds=1.0,
            gradients=GradientNorms(0.52, 85.0 if epoch in spikes else 1.3, 0.0),
        )
        for epoch, pair in enumerate(pairs, 1)
    ]


def test_a_fall_of_training_and_validation_is_a_break():
    (found,) = breaks_in(curve(BROKEN))
    assert (found.epoch, found.recovered) == (7, None)
    assert (found.before, found.lowest, found.validation_before) == pytest.approx((0.97, 0.88, 0.96))


def test_a_break_is_found_in_its_epoch_and_stays_where_it_was():
    whole = curve([*BROKEN, 0.85, 0.9, 0.95, 0.97])
    for count in range(1, len(whole) + 1):
        assert [found.epoch for found in breaks_in(whole[:count])] == ([7] if count >= 7 else [])


@pytest.mark.parametrize(
    ("train", "validation", "sizes"),
    [
        (CLIMB, CLIMB, (TRAIN, VALIDATION)),
        ([*CLIMB, 0.98, 0.99], [*CLIMB, 0.93, 0.88], (TRAIN, VALIDATION)),  # overfitting
        (BROKEN, [*CLIMB, 0.97], (TRAIN, VALIDATION)),  # training alone, as with averaged weights
        ([*CLIMB, 0.95], [*CLIMB, 0.95], (TRAIN, VALIDATION)),  # a dip
        ([0.5, 0.4, 0.55, 0.65], [0.5, 0.4, 0.55, 0.65], (TRAIN, VALIDATION)),  # the first epochs
        (BROKEN, BROKEN, (50, 20)),  # chance, in sets as small as these
        (BROKEN, BROKEN, (TRAIN, 20)),
        (BROKEN, BROKEN, (50, VALIDATION)),
        (BROKEN[-1:], BROKEN[-1:], (TRAIN, VALIDATION)),
        ([], [], (TRAIN, VALIDATION)),
    ],
)
def test_these_are_no_breaks(train, validation, sizes):
    assert breaks_in(curve(train, validation, sizes)) == []


def test_last_steps_that_go_wrong_show_in_validation_an_epoch_earlier():
    (found,) = breaks_in(curve([*CLIMB, 0.96, 0.88], [*CLIMB, 0.85, 0.97]))
    assert found.epoch == 8
    assert found.validation_lowest == pytest.approx(0.85)


def test_a_break_that_deepens_is_one_break_and_a_fall_after_recovery_another():
    deep, again = breaks_in(curve([*BROKEN, 0.7, 0.8, 0.9, 0.96, 0.8, 0.95]))
    assert (deep.epoch, deep.lowest, deep.recovered) == (7, pytest.approx(0.7), 10)
    assert (again.epoch, again.before, again.recovered) == (12, pytest.approx(0.96), 13)


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        (6, "The epoch that was kept, 6, is from before."),
        (7, "Training did not recover; the epoch that was kept, 7, is from after the break."),
        (None, "at a learning rate of 0.003. Try"),
    ],
)
def test_which_epoch_was_kept_is_said(best, sentence):
    (found,) = breaks_in(curve(BROKEN))
    assert sentence in in_words(found, 1.0, best)


def test_an_epoch_after_recovery_is_called_so():
    (found,) = breaks_in(curve([*BROKEN, 0.97, 0.98]))
    assert "is from after training had recovered" in in_words(found, 1.0, 9)


@pytest.mark.parametrize("spikes", [[7], [6]])
def test_clipping_at_the_usual_norm_is_advised_where_gradients_spiked(spikes):
    (found,) = breaks_in(curve(BROKEN, spikes=spikes))
    words = in_words(found, 1.0)
    assert "the largest gradient norm was 85 (before: 1.3)" in words
    assert words.endswith("Try optimizer.lr=0.0015 or clip=0.5.")
    assert in_words(found, 0.5).endswith("Try optimizer.lr=0.0015.")  # they were clipped there already


def test_clipping_is_not_advised_where_gradients_were_as_usual():
    (found,) = breaks_in(curve(BROKEN))
    assert in_words(found, None).endswith("Try optimizer.lr=0.0015.")


def test_the_advised_rate_is_half_of_the_highest_so_far():
    rising = [0.001 * epoch for epoch in range(1, 8)]
    (found,) = breaks_in(curve(BROKEN, rates=rising))
    assert "Try optimizer.lr=0.0035." in in_words(found, None)
    (found,) = breaks_in(curve(BROKEN, rates=[0.01, *rising[1:]]))
    assert "Try optimizer.lr=0.005." in in_words(found, None)


def test_without_known_gradients_nothing_is_said_of_them():
    from dataclasses import replace

    old = [replace(result, gradients=None) for result in curve(BROKEN)]
    (found,) = breaks_in(old)
    assert "gradient" not in in_words(found, 1.0)
    assert found.to_dict(6, 1.0)["gradient_norm"] is None


def test_what_is_stored_has_the_figures_and_the_sentence():
    (found,) = breaks_in(curve(BROKEN, spikes=[7]))
    stored = found.to_dict(6, None)
    assert (stored["epoch"], stored["gradient_norm"], stored["gradient_norm_before"]) == (7, 85.0, 1.3)
    assert stored["words"] == in_words(found, None, 6)
    assert "fell from 97.0 to 88.0 %, validation accuracy from 96.0 to 88.0 %" in stored["words"]
