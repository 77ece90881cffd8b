"""Shortfalls: when the weights that are kept know less than training showed, and what is said of it."""

import pytest

from rnnclf.augment import Augment, ImageAugment
from rnnclf.metrics import Score
from rnnclf.training.shortfall import shortfall


def score(accuracy, total=54_000):
    return Score(round(accuracy * total), total, 0.1)


def test_distorted_sequences_that_are_learned_better_than_the_data_are_told_with_a_lever():
    found = shortfall(16, score(0.97391), score(0.95381), rate=0.008, augment=ImageAugment())
    assert found == {
        "epoch": 16,
        "in_training": pytest.approx(0.97391, abs=1e-4),
        "kept": pytest.approx(0.95381, abs=1e-4),
        "words": "The network classifies 95.38 % of the training sequences correctly as they are, but 97.39 %"
        " of them as they were augmented in epoch 16: augmented sequences look too unlike the data."
        " Try augment.share=0.5 or weaker changes.",
    }


def test_half_of_the_share_is_advised():
    found = shortfall(16, score(0.97), score(0.95), rate=0.008, augment=ImageAugment(share=0.5))
    assert "Try augment.share=0.25 or weaker changes." in found["words"]


def test_an_augmentation_of_ones_own_may_have_no_share():
    class Own(Augment):
        active = True

    found = shortfall(16, score(0.97), score(0.95), rate=0.008, augment=Own())
    assert found["words"].endswith("the data. Try weaker changes.")


def test_without_augmentation_the_last_steps_are_to_blame():
    found = shortfall(3, score(0.97), score(0.4), rate=0.008)
    assert found["words"] == (
        "The network classifies 40.00 % of the training sequences correctly, but during epoch 3, after which"
        " these weights were kept, 97.00 % of them: the last steps of the epoch undid some of what it had"
        " learned. Try optimizer.lr=0.004."
    )


@pytest.mark.parametrize(
    ("during", "kept"),
    [
        (score(0.97), score(0.99)),  # the usual case: dropout and distortions make training harder
        (score(0.97), score(0.97)),
        (score(0.97), score(0.966)),  # hardly more errors
        (score(0.97, 100), score(0.93, 100)),  # chance
        (score(1.0, 30), score(0.9, 30)),
    ],
)
def test_these_are_no_shortfalls(during, kept):
    assert shortfall(1, during, kept, rate=0.01) is None
