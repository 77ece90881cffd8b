"""How often a classifier is right before its sequences have ended, and where it is sure of itself. Prints
nothing.

Shapes: N sequences, B batch, T time, C channels, K classes, P places, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf import checkpoint
from rnnclf.checkpoint import Checkpoint
from rnnclf.data.recordings import Array, Recordings
from rnnclf.errors import ConfigError, DivergedError, OutputError
from rnnclf.export.step import ClassifierStep
from rnnclf.hydra_app.compose import parsed
from rnnclf.metrics import percent
from rnnclf.workflows.export_check import Batch, batch_of
from rnnclf.workflows.loading import Loaded, with_times_told

KEY = "early"  # in the header of a checkpoint, and the word of `rnnclf eval`
PLACES = 50
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
BATCH = 500


@dataclass(frozen=True)
class Level:
    """Answers that are given as soon as a class is so probable.

    decided: how many sequences have one; correct: how many of these are right. share: of the steps of these
    sequences that had come by then, the mean.
    """

    probability: float
    decided: int
    correct: int
    share: float


@dataclass(frozen=True)
class Early:
    """How a classifier does after each step, or after up to 50 of them.

    steps_P: the numbers of these steps, from 1 on. correct_P: how many sequences it then classifies
    correctly; one that has ended keeps its last answer.
    """

    split: str
    sequences: int
    steps_P: tuple[int, ...]
    correct_P: tuple[int, ...]
    levels_L: tuple[Level, ...]

    @property
    def accuracy_P(self) -> list[float]:
        return [correct / self.sequences for correct in self.correct_P]

    def to_plain(self) -> dict[str, Any]:
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_plain(cls, plain: Any) -> Early:
        """The inverse of `to_plain`. Raises ValueError for anything else."""
        try:
            levels = tuple(
                Level(
                    float(each["probability"]),
                    int(each["decided"]),
                    int(each["correct"]),
                    float(each["share"]),
                )
                for each in plain["levels_L"]
            )
            steps, correct = (tuple(map(int, plain[key])) for key in ("steps_P", "correct_P"))
            found = cls(str(plain["split"]), int(plain["sequences"]), steps, correct, levels)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError("not the accuracy by step") from error
        if len(steps) != len(correct) or tuple(each.probability for each in levels) != LEVELS:
            raise ValueError("not the accuracy by step")
        return found


def without_word(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether words of `rnnclf eval` ask for the accuracy by step, and the others. The split is then that of
    validation, if none is named: an answer to how sure is sure enough must not come from the test split.

    Raises ConfigError.
    """
    values = parsed(list(words))
    asked = values.get(KEY, False)
    if not isinstance(asked, bool):
        raise ConfigError(f"{KEY} must be true or false, got {asked}.")
    rest = [word for word in words if word.split("=")[0] != KEY]
    return asked, [*rest, "split=validation"] if asked and "split" not in values else rest


@torch.inference_mode()
def measured(loaded: Loaded, recordings: Recordings, places_N: Array, split: str) -> Early:
    """The accuracy by step on the sequences at `places_N`.

    Raises ConfigError for a classifier that cannot answer step by step, DivergedError for answers that are
    not finite.
    """
    loaded = with_times_told(loaded)
    step = ClassifierStep(loaded.model.cpu().eval(), loaded.learned.preparation)
    temperature = loaded.checkpoint.temperature
    longest = int(recordings.lengths_N[places_N].max())
    steps_P = np.unique(np.linspace(1, longest, min(longest, PLACES)).round().astype(np.int64))
    correct_P = np.zeros(len(steps_P), np.int64)
    decided_L, right_L, share_L = np.zeros((3, len(LEVELS)))
    order_N = places_N[np.argsort(recordings.lengths_N[places_N], kind="stable")]
    for begin in range(0, len(order_N), BATCH):
        batch = batch_of(recordings, order_N[begin : begin + BATCH])
        sure_BT, right_BT = _answers(step, _as_taken(step, batch, loaded, recordings), batch, temperature)
        last_BP = np.minimum(steps_P, batch.lengths_B[:, None]) - 1
        correct_P += np.take_along_axis(right_BT, last_BP, axis=1).sum(axis=0)
        for level, probability in enumerate(LEVELS):
            reached_BT = (sure_BT >= probability) & (np.arange(sure_BT.shape[1]) < batch.lengths_B[:, None])
            decided_B, first_B = reached_BT.any(axis=1), reached_BT.argmax(axis=1)
            decided_L[level] += decided_B.sum()
            right_L[level] += right_BT[np.arange(len(first_B)), first_B][decided_B].sum()
            share_L[level] += ((first_B + 1) / batch.lengths_B)[decided_B].sum()
    rows = zip(LEVELS, decided_L, right_L, share_L / np.maximum(decided_L, 1), strict=True)
    return Early(
        split,
        len(places_N),
        tuple(steps_P.tolist()),
        tuple(correct_P.tolist()),
        tuple(
            Level(p, int(decided), int(right), round(float(share), 6)) for p, decided, right, share in rows
        ),
    )


def _as_taken(step: ClassifierStep, batch: Batch, loaded: Loaded, recordings: Recordings) -> Tensor:
    """The steps of a batch, (B, T, C), as `ClassifierStep` takes them: names by their places."""
    x_BTC = torch.from_numpy(np.ascontiguousarray(batch.x_BTC)).to(step.dtype)
    preparation = loaded.learned.preparation.reading(recordings)
    for name, places in zip(preparation.vocabularies, preparation.places, strict=False):
        code_BT = x_BTC[..., preparation.channels.index(name)]
        place_of = torch.tensor([float("nan"), *places], dtype=x_BTC.dtype)
        code_BT[:] = place_of[(code_BT.nan_to_num(-1.0) + 1).long().clamp(0, len(places))]
    return x_BTC


def _answers(step: ClassifierStep, x_BTC: Tensor, batch: Batch, temperature: float) -> tuple[Array, Array]:
    """The probability of the predicted class after each step, and whether that class is right, (B, T)."""
    assert batch.labels_B is not None
    b, t_end, _ = x_BTC.shape
    elapsed_BT = torch.ones(b, t_end)
    if batch.times_BT is not None:
        passed = np.diff(batch.times_BT, axis=1, prepend=batch.times_BT[:, :1])
        elapsed_BT = torch.from_numpy(passed).float()
    memory = {
        name: [part.expand(b, *part.shape[1:]) for part in parts] for name, parts in step.beginning().items()
    }
    sure, places = [], []
    for t in range(t_end):
        logits, memory = step.advance(x_BTC[:, t], elapsed_BT[:, t], memory)
        if not logits[torch.from_numpy(t < batch.lengths_B)].isfinite().all():
            raise DivergedError("The model's outputs are not finite: it cannot classify.")
        highest = (logits / temperature).softmax(-1).max(dim=-1)
        sure.append(highest.values)
        places.append(highest.indices)
    right_BT = torch.stack(places, 1).numpy() == batch.labels_B[:, None]
    return torch.stack(sure, 1).numpy(), right_BT


def remembered(saved: Checkpoint, found: Early, other_data: bool) -> tuple[str, ...]:
    """Writes the accuracy by step into the header of its checkpoint, unless it was measured on other data or
    on sequences that the model was trained on; then, or if nothing can be written there, it says so."""
    if other_data or found.split not in ("validation", "test"):
        return ("--when of rnnclf stream needs early=true on the validation split of the training data.",)
    try:
        checkpoint.save(saved.path, {**saved.header, KEY: found.to_plain()}, saved.tensors)
    except OutputError as error:
        return (f"The accuracy by step could not be kept for --when of rnnclf stream. {error}",)
    return ()


def promise(saved: Checkpoint, when: float) -> str:
    """What answers that are given at a probability of `when` were worth, as a sentence.

    Raises ConfigError if that was never measured.
    """
    try:
        found = Early.from_plain(saved.header[KEY])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"--when {when:g}: it is not known yet how often this model is right before a sequence ends."
            f" Measure it: rnnclf eval {saved.path.parent} early=true."
        ) from error
    level = max(
        (each for each in found.levels_L if each.probability <= when), key=lambda each: each.probability
    )
    if not level.decided:
        return (
            f"On the {found.split} split, no class of {found.sequences:,} sequences was ever"
            f" {percent(level.probability)} probable."
        )
    return (
        f"On the {found.split} split, a class was {percent(level.probability)} probable in"
        f" {percent(level.decided / found.sequences)} of the sequences, after {percent(level.share)} of their"
        f" steps on average; the answer then was right in {percent(level.correct / level.decided)}."
    )
