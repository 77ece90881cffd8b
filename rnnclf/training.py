"""Training: one generator that yields an EpochResult per epoch.

Knows nothing of files or screens, and never sees the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.augment import Augment, NoAugment
from rnnclf.data import PictureLayout, SequenceDataset
from rnnclf.data.order import epoch_batches
from rnnclf.errors import DivergedError
from rnnclf.metrics import Evaluation, Score
from rnnclf.model import SequenceClassifier
from rnnclf.optim import Optimizer, Schedule

EVALUATION_BATCH = 1000  # sequences; large products, little memory


@dataclass(frozen=True)
class Recipe:
    """How to train.

    class_weights: the weight of each class in the loss, None for 1.
    focal: γ of the focal loss, which looks less at what is right already (Lin et al. 2017,
        https://arxiv.org/abs/1708.02002); 0 for cross-entropy.
    sampling: shuffled or balanced, see `epoch_batches`.
    augment, layout: what is changed in each batch, and how pictures lie in the sequences.
    values: the leading features that are measured values, not masks; None: all.

    `last_batch` is the tutorial's way: epochs of whole batches only, and the training accuracy of an
    epoch is that of its last batch instead of all of them.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    clip: float | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    focal: float = 0.0
    sampling: str = "shuffled"
    augment: Augment = field(default_factory=NoAugment)
    layout: PictureLayout | None = None
    values: int | None = None
    last_batch: bool = False

    def loss(self, logits_BK: Tensor, y_B: Tensor) -> Tensor:
        """What is made small: the weighted mean over the batch, a scalar."""
        weight_K = None if self.class_weights is None else logits_BK.new_tensor(self.class_weights)
        if not self.focal:
            return functional.cross_entropy(
                logits_BK, y_B, weight=weight_K, label_smoothing=self.label_smoothing
            )
        loss_B = functional.cross_entropy(
            logits_BK, y_B, weight=weight_K, label_smoothing=self.label_smoothing, reduction="none"
        )
        wrong_B = 1 - logits_BK.softmax(dim=-1).gather(1, y_B.unsqueeze(-1)).squeeze(-1)
        total = len(y_B) if weight_K is None else weight_K[y_B].sum()
        # kept off 0, where the gradient of a power below 1 is infinite
        return (wrong_B.clamp(min=1e-7) ** self.focal * loss_B).sum() / total


@dataclass(frozen=True)
class BatchProgress:
    """Where training stands after a batch; the counts are those of the epoch so far."""

    epoch: int
    seen: int
    of: int
    correct: int


@dataclass(frozen=True)
class EpochResult:
    """One epoch: its scores, the learning rate of its last step, its seconds of training and validation."""

    epoch: int
    train: Score
    validation: Score
    learning_rate: float
    seconds: float
    test: Score | None = None  # filled in by whoever holds the test split, never here


@dataclass
class Training:
    """A model on its way: what has to be kept to go on after an interruption."""

    model: SequenceClassifier
    recipe: Recipe
    epoch: int = 0
    """Epochs done."""
    torch_optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.torch_optimizer = self.recipe.optimizer.build(self.model)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, the optimizer's memory and the random generators, by name."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, weight in self.model.named_parameters():
            for key, value in self.torch_optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return tensors

    def restore(self, tensors: dict[str, Tensor], epoch: int) -> None:
        """Goes back to where `tensors` were taken, after `epoch` epochs."""
        self.epoch = epoch
        self.model.load_state_dict(
            {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        memory: dict[str, dict[str, Tensor]] = {}
        for full_name, tensor in tensors.items():
            if full_name.startswith("optimizer."):
                _, key, name = full_name.split(".", 2)
                memory.setdefault(name, {})[key] = tensor.clone()
        names = {weight: name for name, weight in self.model.named_parameters()}
        order = [names[weight] for group in self.torch_optimizer.param_groups for weight in group["params"]]
        # through torch's own way in, which knows what of it belongs on which device
        state = {index: memory[name] for index, name in enumerate(order) if name in memory}
        self.torch_optimizer.load_state_dict({**self.torch_optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])


def fit(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
) -> Iterator[EpochResult]:
    """Trains until the recipe's epochs are done, and yields the result of each.

    Between two results the caller may score or save the model; it must not change it.

    Raises:
        DivergedError: the loss became NaN or infinite; the message names epoch and batch.
    """
    while training.epoch < training.recipe.epochs:
        started = time.perf_counter()
        with training.model.cores(training.recipe.batch_size, train.ragged):
            score, learning_rate = _train_one_epoch(training, train, on_batch)
        validated = evaluate(training.model, validation).score
        if not math.isfinite(validated.loss):
            raise DivergedError(
                _diverged(training, "validation loss", validated.loss, "after its last batch")
            )
        training.epoch += 1
        seconds = time.perf_counter() - started
        yield EpochResult(training.epoch, score, validated, learning_rate, seconds)


def _train_one_epoch(
    training: Training, train: SequenceDataset, on_batch: Callable[[BatchProgress], None]
) -> tuple[Score, float]:
    recipe, model = training.recipe, training.model
    batches = epoch_batches(train, recipe.batch_size, recipe.sampling, whole_only=recipe.last_batch)
    total = sum(map(len, batches))
    model.train()
    seen = correct = 0
    loss_sum = rate = 0.0
    for number, indices_B in enumerate(batches):
        rate = _set_rate(training, training.epoch * len(batches) + number, recipe.epochs * len(batches))
        x_BTI, y_B, lengths_B = train.batch(indices_B)
        if recipe.augment.active:
            x_BTI, lengths_B = recipe.augment(x_BTI, lengths_B, recipe.layout, values=recipe.values)
        logits_BK = model(x_BTI, lengths_B)
        loss = recipe.loss(logits_BK, y_B)
        loss_value = loss.item()
        if not math.isfinite(loss_value):
            where = f"at batch {number + 1} of {len(batches)}"
            raise DivergedError(_diverged(training, "loss", loss_value, where))
        training.torch_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        training.torch_optimizer.step()
        seen += len(y_B)
        correct += int((logits_BK.argmax(dim=-1) == y_B).sum())
        loss_sum += loss_value * len(y_B)
        on_batch(BatchProgress(training.epoch + 1, seen, total, correct))
    if recipe.last_batch:  # scored once more, with the weights that it has just changed
        return evaluate(model, train.subset(batches[-1])).score, rate
    return Score(correct, seen, loss_sum / seen), rate


def _set_rate(training: Training, step: int, total: int) -> float:
    recipe = training.recipe
    rate = recipe.optimizer.lr * recipe.schedule.factor(step, total)
    for group in training.torch_optimizer.param_groups:
        group["lr"] = rate
    return rate


def _diverged(training: Training, what: str, value: float, where: str) -> str:
    lr, clip = training.recipe.optimizer.lr, training.recipe.clip
    advice = f"a smaller learning rate (optimizer.lr is {lr:g})"
    if clip is None or clip > 1:
        advice += " or clipped gradients (clip=1)"
    return f"The {what} became {value} in epoch {training.epoch + 1}, {where}. Try {advice}."


@torch.inference_mode()
def evaluate(model: SequenceClassifier, data: SequenceDataset) -> Evaluation:
    """Classifies every sequence of `data` and counts what was taken for what."""
    model.eval()
    k = len(data.classes)
    counts_KK = torch.zeros(k * k, dtype=torch.int64, device=data.y_N.device)
    loss_sum: Any = torch.zeros((), dtype=torch.float64)
    with model.cores(EVALUATION_BATCH, data.ragged):
        for x_BTI, y_B, lengths_B in data.batches(EVALUATION_BATCH):
            logits_BK = model(x_BTI, lengths_B)
            counts_KK += torch.bincount(y_B * k + logits_BK.argmax(dim=-1), minlength=k * k)
            loss_sum = loss_sum + functional.cross_entropy(logits_BK, y_B, reduction="sum").cpu().double()
    rows = counts_KK.reshape(k, k).tolist()
    return Evaluation(data.classes, tuple(map(tuple, rows)), loss_sum.item() / len(data))
