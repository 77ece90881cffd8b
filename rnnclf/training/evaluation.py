"""Evaluation on a dataset: a score, or the predictions for each sequence.

Shapes: N sequences, B batch, T time, I inputs, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.data import SequenceDataset
from rnnclf.data.recordings import Array
from rnnclf.errors import DivergedError
from rnnclf.metrics import Evaluation, Score
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import is_eligible

EVALUATION_BATCH = 1000  # sequences: large products, little memory
MOST_STEPS = 100_000  # of all sequences of a batch on a CPU: a model keeps its units for each of them
IN_MEMORY = 2**26  # bytes of logits to keep in memory; more go to a temporary file
PENDING = 2**24  # bytes of logits to collect on a device before copying them, which makes the host wait


@torch.inference_mode()
def score_model(model: SequenceClassifier, data: SequenceDataset, temperature: float = 1.0) -> Score:
    """Accuracy and mean cross-entropy of a model, without keeping its predictions."""
    if temperature != 1:  # which machine code does not know
        return evaluate_model(model, data, temperature).score
    model.eval()
    with model.cores(_batch_size(data), data.ragged):
        rows = _score_compiled(model, data) if is_eligible(model, data) else _score(model, data)
    right, loss = 0.0, 0.0
    for batch_right, batch_loss in rows:  # not sum(), which rounds differently from Python 3.12 on
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
    from rnnclf.training.whole_step import scoring_batches, scoring_steps

    rows = []
    with closing(scoring_steps(model, data)) as step:
        for indices_B in data.in_turn(scoring_batches(data)):
            loss, _, right = step(indices_B)
            rows.append([right, loss * len(indices_B)])
    return rows


@torch.inference_mode()
def evaluate_model(model: SequenceClassifier, data: SequenceDataset, temperature: float = 1.0) -> Evaluation:
    """Predicts the class of every sequence of `data`, in its order, with probabilities at this temperature.

    Memory stays bounded: many logits go to a temporary file, which exists as long as the result.
    Raises DivergedError if outputs of the model are not finite.
    """
    model.eval()
    logits_NK = _allocate_logits(len(data), len(data.classes))
    with model.cores(_batch_size(data), data.ragged):
        compiled = is_eligible(model, data)
        for indices_n, logits_nK in _logits_compiled(model, data) if compiled else _logits(model, data):
            found_nK = logits_nK.cpu().numpy()
            if not np.isfinite(found_nK).all():
                raise DivergedError("The model's outputs are not finite: it cannot classify.")
            logits_NK[indices_n.numpy()] = found_nK
    y_N = data.y_N.cpu().numpy()
    return Evaluation(data.classes, y_N, logits_NK, data.ids_N, data.recordings_N, temperature)


def _logits(model: SequenceClassifier, data: SequenceDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices and logits, many sequences at a time."""
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
    from rnnclf.training.whole_step import scoring_batches, scoring_steps

    with closing(scoring_steps(model, data)) as step:
        for indices_B in data.in_turn(scoring_batches(data)):
            step(indices_B)
            yield indices_B, step.logits_BK


def _batch_size(data: SequenceDataset) -> int:
    """The number of sequences to classify together: fewer of long ones, which would take gigabytes of memory.

    An accelerator has that memory, and would take longer for small batches.
    """
    if (data.device or data.x_SI.device).type != "cpu":
        return EVALUATION_BATCH
    return max(min(EVALUATION_BATCH, MOST_STEPS // data.steps), 1)


def _batches(model: SequenceClassifier, data: SequenceDataset) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Indices, logits and labels, batch by batch."""
    order = data.evaluation_order(_batch_size(data))
    for indices_B, at_hand_B in zip(data.in_turn(order), data.at_hand(order), strict=True):
        x_BTI, y_B, lengths_B = data.batch(at_hand_B)
        yield indices_B, model(x_BTI, lengths_B), y_B


def _allocate_logits(sequences: int, classes: int) -> Array:
    """An array (N, K), float32, in memory or in a temporary file."""
    if 4 * sequences * classes <= IN_MEMORY:
        return np.empty((sequences, classes), np.float32)
    with tempfile.TemporaryFile(prefix="rnnclf-") as file:  # the mapping outlives the closed file
        return np.memmap(file, np.float32, "w+", shape=(sequences, classes))
