"""Evaluation equals a plain loop over the sequences."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from rnnclf.training import evaluation
from rnnclf.training.evaluation import evaluate_model
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
    assert found.loss == pytest.approx(loss)
    assert found.classes == data.classes


def test_evaluation_counts_classes_that_never_occur():
    data = sequences(6)
    data = replace(data, y_N=torch.zeros(6, dtype=torch.int64))
    found = evaluate_model(classifier(), data)
    assert len(found.counts) == CLASSES
    assert [sum(row) for row in found.counts] == [6, 0, 0]
