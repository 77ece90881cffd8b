"""What a classifier takes sequences for.

Shapes: N sequences, B batch, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.data import SequenceDataset
from rnnclf.metrics import Evaluation
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import is_eligible

EVALUATION_BATCH = 1000  # sequences; large products, little memory


@torch.inference_mode()
def evaluate_model(model: SequenceClassifier, data: SequenceDataset) -> Evaluation:
    """Classifies every sequence of `data` and counts what was taken for what."""
    model.eval()
    k = len(data.classes)
    with model.cores(EVALUATION_BATCH, data.ragged):
        place_N, losses = _compiled(model, data) if is_eligible(model, data) else _batch_by_batch(model, data)
    rows = torch.bincount(place_N, minlength=k * k).reshape(k, k).tolist()
    loss_sum = 0.0
    for loss in losses.tolist():
        loss_sum += loss
    return Evaluation(data.classes, tuple(map(tuple, rows)), loss_sum / len(data))


def _batch_by_batch(model: SequenceClassifier, data: SequenceDataset) -> tuple[Tensor, Tensor]:
    """The place of each sequence in the table of classes and what they are taken for, row by row, in any
    order; the sum of the losses of each batch. Looked at when all is done."""
    k = len(data.classes)
    places, losses = [], []
    for x_BTI, y_B, lengths_B in data.batches(EVALUATION_BATCH):
        logits_BK = model(x_BTI, lengths_B)
        places.append(y_B * k + logits_BK.argmax(dim=-1))
        losses.append(functional.cross_entropy(logits_BK, y_B, reduction="sum"))
    return torch.cat(places), torch.stack(losses)


def _compiled(model: SequenceClassifier, data: SequenceDataset) -> tuple[Tensor, Tensor]:
    """The same with one call of machine code for each batch."""
    from rnnclf.training.compiled_step import score

    predicted_N, losses = score(model, data)
    return data.y_N * len(data.classes) + predicted_N, losses
