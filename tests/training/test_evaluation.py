"""Evaluation equals a plain loop over the sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rnnclf.training import evaluation
from rnnclf.training.evaluation import evaluate_model, score_model
from tests.training.small import CLASSES, classifier, sequences, x_of

# Evaluation


def plainly_evaluated(model, data):
    """Counts and mean loss, one sequence after the other."""
    counts = [[0] * CLASSES for _ in range(CLASSES)]
    losses = []
    for n in range(len(data)):
        length = int(data.lengths_N[n])
        logits_1K = model(x_of(data)[n : n + 1, :length])
        counts[data.y_N[n]][logits_1K.argmax()] += 1
        losses.append(functional.cross_entropy(logits_1K, data.y_N[n : n + 1]).item())
    return tuple(map(tuple, counts)), sum(losses) / len(losses)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("batch", [4, 1000])
def test_evaluation_equals_a_plain_loop(ragged, batch, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    model, data = classifier(dropout=0.5), sequences(30, ragged=ragged)
    found = evaluate_model(model.train(), data)
    counts, loss = plainly_evaluated(model.eval(), data)
    assert found.counts == counts
    assert found.score.loss == pytest.approx(loss)
    assert score_model(model, data).loss == pytest.approx(loss)
    assert score_model(model, data).correct == found.score.correct
    assert found.classes == data.classes


def test_evaluation_counts_classes_that_never_occur():
    data = sequences(6)
    data = replace(data, y_N=torch.zeros(6, dtype=torch.int64))
    found = evaluate_model(classifier(), data)
    assert len(found.counts) == CLASSES
    assert [sum(row) for row in found.counts] == [6, 0, 0]


def test_logits_stand_in_the_order_of_the_data_whatever_the_batches(monkeypatch):
    data, model = sequences(30, ragged=True), classifier()
    found = evaluate_model(model, data)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(evaluation, "PENDING", 1)
    again = evaluate_model(model, data)
    np.testing.assert_allclose(again.logits_NK, found.logits_NK, rtol=1e-5, atol=1e-6)
    for n in (0, 7, 29):
        length = int(data.lengths_N[n])
        with torch.no_grad():
            alone_K = model(x_of(data)[n : n + 1, :length])[0]
        np.testing.assert_allclose(found.logits_NK[n], alone_K, rtol=1e-4, atol=1e-5)
    assert found.y_N.tolist() == data.y_N.tolist()
    assert found.ids_N.tolist() == list(range(30))


def test_a_subset_keeps_the_ids_of_the_whole():
    data = sequences(30).subset(torch.tensor([4, 20, 9])).subset(torch.tensor([2, 0]))
    assert evaluate_model(classifier(), data).ids_N.tolist() == [9, 4]


def test_many_logits_are_kept_in_a_file(monkeypatch):
    data, model = sequences(30), classifier()
    monkeypatch.setattr(evaluation, "IN_MEMORY", 10)
    found = evaluate_model(model, data)
    assert isinstance(found.logits_NK, np.memmap)
    monkeypatch.undo()
    assert (found.logits_NK == evaluate_model(model, data).logits_NK).all()
