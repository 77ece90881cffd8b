"""Evaluation on a dataset: a score, or the predictions for each sequence.

Shapes: N sequences, B batch, T time, I inputs, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.data import SequenceDataset
from rnnclf.metrics import Array, Evaluation, Score
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import is_eligible

EVALUATION_BATCH = 1000  # sequences: large products, little memory
IN_MEMORY = 2**26  # bytes of logits; more of them are kept in a temporary file
PENDING = 2**24  # bytes of logits that wait on a device, which would have to stop for each batch


@torch.inference_mode()
def score_model(model: SequenceClassifier, data: SequenceDataset) -> Score:
    """Accuracy and mean cross-entropy of a model, without keeping its predictions."""
    model.eval()
    with model.cores(EVALUATION_BATCH, data.ragged):
        rows = _score_compiled(model, data) if is_eligible(model, data) else _score(model, data)
    right, loss = 0.0, 0.0
    for batch_right, batch_loss in rows:  # one after the other, so that every machine adds in the same order
        right += batch_right
        loss += batch_loss
    return Score(int(right), len(data), loss / len(data))


def _score(model: SequenceClassifier, data: SequenceDataset) -> list[list[float]]:
    """Correct predictions and summed loss of each batch, read from the device when all is computed."""
    rows = []
    for _, logits_BK, y_B in _batches(model, data):
        right = (logits_BK.argmax(dim=-1) == y_B).sum()
        loss = functional.cross_entropy(logits_BK, y_B, reduction="sum")
        rows.append(torch.stack((right.to(loss.dtype), loss)))
    return torch.stack(rows).tolist()


def _score_compiled(model: SequenceClassifier, data: SequenceDataset) -> list[list[float]]:
    """The same with one call of machine code for each batch."""
    from rnnclf.training.compiled_step import CompiledScoring

    rows = []
    with CompiledScoring(model, data) as scoring:
        for indices_B in scoring.batches():
            loss, right = scoring(indices_B)
            rows.append([right, loss * len(indices_B)])
    return rows


@torch.inference_mode()
def evaluate_model(model: SequenceClassifier, data: SequenceDataset) -> Evaluation:
    """The logits of every sequence of `data`, in its order, and what follows from them.

    Memory stays bounded: many logits are written to a temporary file, which is gone with the result.
    """
    model.eval()
    logits_NK = _room(len(data), len(data.classes))
    with model.cores(EVALUATION_BATCH, data.ragged):
        compiled = is_eligible(model, data)
        for indices_n, logits_nK in _logits_compiled(model, data) if compiled else _logits(model, data):
            logits_NK[indices_n.numpy()] = logits_nK.cpu().numpy()
    return Evaluation(data.classes, data.y_N.cpu().numpy(), logits_NK, data.ids_N)


def _logits(model: SequenceClassifier, data: SequenceDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of some sequences at a time, and their places."""
    indices, waiting, size = [], [], 0
    for indices_B, logits_BK, _ in _batches(model, data):
        indices.append(indices_B)
        waiting.append(logits_BK.float())
        size += 4 * logits_BK.numel()
        if size >= PENDING:
            yield torch.cat(indices), torch.cat(waiting)
            indices, waiting, size = [], [], 0
    if indices:
        yield torch.cat(indices), torch.cat(waiting)


def _logits_compiled(model: SequenceClassifier, data: SequenceDataset) -> Iterator[tuple[Tensor, Tensor]]:
    from rnnclf.training.compiled_step import CompiledScoring

    with CompiledScoring(model, data) as scoring:
        for indices_B in scoring.batches():
            scoring(indices_B)
            yield indices_B, scoring.logits_BK


def _batches(model: SequenceClassifier, data: SequenceDataset) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Places, logits and labels, batch by batch."""
    order = data.evaluation_order(EVALUATION_BATCH)
    for indices_B, at_hand_B in zip(order, data.at_hand(order), strict=True):
        x_BTI, y_B, lengths_B = data.batch(at_hand_B)
        yield indices_B, model(x_BTI, lengths_B), y_B


def _room(sequences: int, classes: int) -> Array:
    """An array (N, K) for logits, float32."""
    if 4 * sequences * classes <= IN_MEMORY:
        return np.empty((sequences, classes), np.float32)
    with tempfile.TemporaryFile(prefix="rnnclf-") as file:  # a mapped file can be used after it is closed
        return np.memmap(file, np.float32, "w+", shape=(sequences, classes))
