"""Scores of whole recordings, from the predictions for their windows."""

from __future__ import annotations

import numpy as np
import pytest

from rnnclf.metrics import Evaluation, wilson_interval
from rnnclf.training.by_recording import by_recording, with_recordings


def evaluation(recordings: str, labels: str, probabilities: list[float]) -> Evaluation:
    """Windows of recordings named by letters, with labels 0 and 1, and the probability of label 1."""
    p_N = np.array(probabilities)
    return Evaluation(
        classes=("0", "1"),
        y_N=np.array([int(label) for label in labels]),
        logits_NK=np.log(np.stack((1 - p_N, p_N), axis=1)).astype(np.float32),
        ids_N=np.arange(len(p_N)),
        recordings_N=np.array([*recordings], dtype=object),
    )


def test_recordings_are_classified_by_votes_and_by_mean_probability():
    # a: two weak votes for 0, one strong for 1; b: as it should be; c: a tie of votes that 1 wins
    found = by_recording(evaluation("aaabbcc", "1110011", [0.4, 0.4, 0.9, 0.1, 0.6, 0.3, 0.8]))
    assert found["count"] == 3
    assert found["by_probability"] == {
        "accuracy": 1.0,
        "correct": 3,
        "total": 3,
        "interval95": list(wilson_interval(3, 3)),
    }
    assert found["by_votes"]["correct"] == 2


def test_recordings_whose_labels_change_have_an_accuracy_each():
    found = by_recording(evaluation("aabbbb", "010000", [0.1, 0.9, 0.1, 0.1, 0.9, 0.9]))
    assert found == {"count": 2, "accuracy": {"mean": 0.75, "lowest": 0.5, "highest": 1.0}}


def test_windows_of_a_recording_may_be_in_any_order():
    one = evaluation("abab", "1010", [0.6, 0.2, 0.7, 0.3])
    assert by_recording(one) == by_recording(evaluation("aabb", "1100", [0.6, 0.7, 0.2, 0.3]))


def test_sequences_that_are_no_windows_have_no_recordings():
    found = evaluation("ab", "01", [0.2, 0.8])
    assert with_recordings(found)["recordings"]["count"] == 2
    plain = Evaluation(found.classes, found.y_N, found.logits_NK, found.ids_N)
    assert by_recording(plain) is None
    assert with_recordings(plain) == plain.to_dict()
    assert with_recordings(plain)["accuracy"] == pytest.approx(1.0)
