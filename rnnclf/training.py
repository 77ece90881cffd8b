"""Training: one generator that yields an EpochResult per epoch.

Knows nothing of files or screens, and never sees the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.augment import Augment, NoAugment
from rnnclf.data import PictureLayout, SequenceDataset
from rnnclf.data.dataset import Batch
from rnnclf.data.order import epoch_batches
from rnnclf.errors import DivergedError
from rnnclf.guards import Divergence, Losses, behind, not_finite_in
from rnnclf.metrics import Score
from rnnclf.model import SequenceClassifier
from rnnclf.optim import Optimizer, Schedule, make_step
from rnnclf.plain import Loss, suits
from rnnclf.recorded import RecordedStep, make_recordable
from rnnclf.scoring import evaluate

if TYPE_CHECKING:
    from rnnclf.compiled_step import CompiledSteps

LOOK_EVERY = 50  # batches, on a device that works on while the host prepares what comes next

ROLLBACKS = 5  # of a run at most, each with half the learning rate of the one before

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    class_weights: the weight of each class in the loss, None for 1.
    focal: γ of the focal loss, which looks less at what is right already (Lin et al. 2017,
        https://arxiv.org/abs/1708.02002); 0 for cross-entropy.
    sampling: shuffled or balanced, see `epoch_batches`.
    augment, layout: what is changed in each batch, and how pictures lie in the sequences.
    values: the leading features that are measured values, not masks; None: all.
    on_divergence: stop, or rollback: go back to the start of the epoch with half the learning rate.
    graph: record the step once and replay it, see rnnclf/recorded.py.

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
    on_divergence: str = "stop"
    graph: bool = False

    def loss(self, logits_BK: Tensor, y_B: Tensor) -> Tensor:
        """What is made small: the weighted mean over the batch, a scalar."""
        weights = self.class_weights
        weight_K = None if weights is None else _on(weights, logits_BK.dtype, logits_BK.device)
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


@cache
def _on(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor, brought to the device once: each time it would wait for them."""
    return torch.tensor(numbers, dtype=dtype, device=device)


@dataclass(frozen=True)
class BatchProgress:
    """Where training stands after a batch; the counts are those of the epoch up to the last look at them."""

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
class EpochSoFar:
    """What the epoch that is on has come to: its batches done, and sums over those that were looked at."""

    batches: int = 0
    seen: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    learning_rate: float = 0.0
    """Of the last step."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Rollback:
    """Training went back to the start of an epoch: from which batch, to which share of the learning rate."""

    epoch: int
    batch: int
    factor: float
    reason: str


Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""Copies of the tensors, and the state."""


@dataclass
class Training:
    """A model on its way. `tensors` and `state` are all that has to be kept to go on after an interruption,
    wherever it comes between two batches."""

    model: SequenceClassifier
    recipe: Recipe
    epoch: int = 0
    """Epochs done."""
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    losses: Losses = field(default_factory=Losses)
    rollbacks: list[Rollback] = field(default_factory=list)
    torch_optimizer: torch.optim.Optimizer = field(init=False)
    weights: list[nn.Parameter] = field(init=False)
    """Those that are learned."""
    _epoch_random: Tensor | None = None
    """The CPU's random generator as it was when the batches of this epoch were drawn."""
    safe: Snapshot | None = None
    """That of the start of this epoch, where rolling back is wanted."""
    _look: Callable[[], None] = lambda: None
    """Takes into account the steps that nobody has looked at yet."""
    recorded: RecordedStep | None = None
    """Knows where weights and the optimizer's memory lie."""

    def __post_init__(self) -> None:
        self.torch_optimizer = self.recipe.optimizer.build(self.model)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        if self.recipe.graph:
            make_recordable(self.torch_optimizer)

    @property
    def rate_factor(self) -> float:
        """What is left of the learning rate after all rollbacks."""
        return self.rollbacks[-1].factor if self.rollbacks else 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Weights, the optimizer's memory, the random generators and the last losses, by name.

        Raises Divergence where steps that were not looked at yet turn out to be lost, as `state` does.
        """
        self._look()
        tensors = self._learned() | self._random()
        tensors["losses"] = torch.tensor(self.losses.recent, dtype=torch.float64)
        if self.so_far.batches and self._epoch_random is not None:
            tensors["random.epoch"] = self._epoch_random
            safe = {} if self.safe is None else self.safe[0]
            tensors |= {f"safe.{name}": tensor for name, tensor in safe.items()}
        return tensors

    def _learned(self) -> dict[str, Tensor]:
        """What a step changes, as it lies in memory."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, weight in self.model.named_parameters():
            for key, value in self.torch_optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def _random(self) -> dict[str, Tensor]:
        tensors = {"random.cpu": torch.get_rng_state()}
        if (device := self._device) != "cpu":
            tensors[f"random.{device}"] = getattr(torch, device).get_rng_state()
        return tensors

    def _set_random(self, tensors: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(tensors["random.cpu"])
        name = f"random.{self._device}"
        if name in tensors and self._device != "cpu":
            getattr(torch, self._device).set_rng_state(tensors[name])

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within it steps may be made; afterwards all is as it was, and in the same memory."""
        before, random = {name: tensor.clone() for name, tensor in self._learned().items()}, self._random()
        yield
        with torch.no_grad():
            for name, tensor in self._learned().items():
                # an optimizer that has made no step remembers nothing, which is zeros
                tensor.copy_(before[name]) if name in before else tensor.zero_()
        self._set_random(random)

    def state(self) -> dict[str, Any]:
        """The rest, as JSON-ready data: the place in the epoch, the guards, what was rolled back."""
        self._look()
        state = {
            "epoch": self.epoch,
            "so_far": asdict(self.so_far),
            "high_losses": self.losses.high,
            "rollbacks": [asdict(rollback) for rollback in self.rollbacks],
        }
        if self.so_far.batches and self.safe is not None:
            state["safe"] = self.safe[1]
        return state

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `tensors` and `state` were taken. Raises ValueError where they do not fit."""
        self.recorded = None  # the optimizer gets new memory
        try:
            self._restore_place(tensors, state)
            self._restore_weights(tensors)
            self._set_random(tensors)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"it does not hold the state of such a training ({error})") from error

    def _restore_place(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.epoch = _count(state["epoch"])
        self.so_far = _made(EpochSoFar, state["so_far"])
        if not self.so_far.batches <= self.so_far.seen >= self.so_far.correct:
            raise ValueError("its counts cannot be")
        self.rollbacks = [_made(Rollback, rollback) for rollback in state["rollbacks"]]
        recent = tensors["losses"].tolist()
        self.losses = Losses(recent, _count(state["high_losses"]))
        self._epoch_random = tensors["random.epoch"] if self.so_far.batches else None
        safe = _without_prefix(tensors, "safe.")
        self.safe = (safe, state["safe"]) if safe else None

    def _restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(_without_prefix(tensors, "model."))
        weights = dict(self.model.named_parameters())
        memory: dict[str, dict[str, Tensor]] = {}
        for full_name, tensor in _without_prefix(tensors, "optimizer.").items():
            key, name = full_name.split(".", 1)
            if tensor.ndim and tensor.shape != weights[name].shape:
                raise ValueError(f"the memory of the optimizer does not fit {name}")
            memory.setdefault(name, {})[key] = tensor.clone()
        names = {weight: name for name, weight in weights.items()}
        order = [names[weight] for group in self.torch_optimizer.param_groups for weight in group["params"]]
        # through torch's own way in, which knows what of it belongs on which device
        state = {index: memory[name] for index, name in enumerate(order) if name in memory}
        self.torch_optimizer.load_state_dict({**self.torch_optimizer.state_dict(), "state": state})

    def draw_batches(self, train: SequenceDataset) -> list[Tensor]:
        """The batches of this epoch; those of an epoch that has begun already are drawn once more."""
        now = torch.get_rng_state()
        if self.so_far.batches:
            assert self._epoch_random is not None
            torch.set_rng_state(self._epoch_random)
        else:
            self._epoch_random = now
        recipe = self.recipe
        batches = epoch_batches(train, recipe.batch_size, recipe.sampling, whole_only=recipe.last_batch)
        if self.so_far.batches:
            torch.set_rng_state(now)
        return batches

    def snapshot(self) -> Snapshot:
        return {name: tensor.clone() for name, tensor in self.tensors().items()}, self.state()

    def go_back(self, snapshot: Snapshot) -> None:
        """Restores what was taken in this epoch, and keeps what is of its start."""
        random, safe = self._epoch_random, self.safe
        self.restore(*snapshot)
        self._epoch_random, self.safe = random, safe

    def take_as_safe(self) -> None:
        """Has `roll_back` lead here."""
        self.safe = self.snapshot()

    @property
    def can_roll_back(self) -> bool:
        """Whether that is wanted, was not done too often, and leads elsewhere than to where training is."""
        if self.safe is None or len(self.rollbacks) == ROLLBACKS:
            return False
        return bool(self.so_far.batches) or self.epoch != self.safe[1]["epoch"]

    def roll_back(self, reason: str) -> Rollback:
        """Goes back to where all was well with half the learning rate."""
        assert self.safe is not None
        batch = self.so_far.batches + 1
        rollback = Rollback(self.epoch + 1, batch, self.rate_factor / 2, reason)
        rollbacks = [*self.rollbacks, rollback]
        self.restore(*self.safe)
        self.rollbacks, self.losses.high = rollbacks, 0
        return rollback

    @property
    def _device(self) -> str:
        return self.model.head.weight.device.type


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


_SOUND: dict[Any, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int and value >= 0,
    "float": lambda value: isinstance(value, float) and math.isfinite(value),
    "str": lambda value: isinstance(value, str),
}


def _made(kind: type[T], plain: Mapping[str, Any]) -> T:
    """A dataclass from JSON. Raises TypeError or ValueError where the values are not of its types."""
    made = kind(**plain)
    for name, value in vars(made).items():
        if not _SOUND[kind.__annotations__[name]](value):
            raise ValueError(f"{name} cannot be {value!r}")
    return made


def _count(value: Any) -> int:
    if not _SOUND["int"](value):
        raise ValueError(f"a count cannot be {value!r}")
    return int(value)


def fit(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
    on_rollback: Callable[[Rollback], None] = lambda rollback: None,
) -> Iterator[EpochResult]:
    """Trains until the recipe's epochs are done, and yields the result of each.

    After a batch and between two results the caller may score or save the model; it must not change it.

    Raises:
        DivergedError: the loss became NaN or infinite or rose far above what it was, or the gradients
            exploded, and there is no going back; the message names epoch, batch and weight.
    """
    while training.epoch < training.recipe.epochs:
        if training.recipe.on_divergence == "rollback" and not training.so_far.batches:
            training.take_as_safe()
        try:
            result = _one_epoch(training, train, validation, on_batch)
            if training.recipe.on_divergence == "rollback":
                _refuse_bad_start(training, train)
        except Divergence as divergence:
            if not training.can_roll_back:
                raise DivergedError(f"{divergence}. {_advice(training, divergence.in_data)}") from None
            on_rollback(training.roll_back(str(divergence)))
            continue
        yield result


def _refuse_bad_start(training: Training, train: SequenceDataset) -> None:
    """Raises Divergence where the next epoch would with its first batch: then it is this epoch that went
    wrong. Leaves everything as it was."""
    if training.epoch == training.recipe.epochs:
        return
    before = training.snapshot()
    training.model.train()
    with training.model.cores(training.recipe.batch_size, train.ragged):
        epoch = _Epoch(training, train)
        batch = epoch.batch(0)
        _differentiate(training, batch, epoch.judge(0, lambda: batch))
    training.go_back(before)


def _one_epoch(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None],
) -> EpochResult:
    """The epoch that is on, from where it stands to its end."""
    began = time.perf_counter() - training.so_far.seconds

    def after_batch(total: int) -> None:
        so_far = training.so_far
        so_far.seconds = time.perf_counter() - began
        on_batch(BatchProgress(training.epoch + 1, so_far.seen, total, so_far.correct))

    with training.model.cores(training.recipe.batch_size, train.ragged):
        score = _train(training, train, after_batch)
    validated = evaluate(training.model, validation).score
    if not math.isfinite(validated.loss):
        place = f"in epoch {training.epoch + 1}, after its last batch"
        raise Divergence(f"The validation loss became {validated.loss} {place}{behind(training.model)}")
    learning_rate = training.so_far.learning_rate
    training.epoch += 1
    training.so_far = EpochSoFar()
    return EpochResult(training.epoch, score, validated, learning_rate, time.perf_counter() - began)


def _train(training: Training, train: SequenceDataset, after_batch: Callable[[int], None]) -> Score:
    """Trains on the batches of the epoch that are left."""
    epoch = _Epoch(training, train)
    training.model.train()
    training._look = epoch.look
    try:
        epoch.run(after_batch)
    finally:
        training._look = lambda: None
        epoch.close()
    so_far = training.so_far
    if training.recipe.last_batch:  # scored once more, with the weights that it has just changed
        return evaluate(training.model, train.subset(epoch.indices[-1])).score
    return Score(so_far.correct, so_far.seen, so_far.loss_sum / so_far.seen)


@dataclass(frozen=True)
class _Judge:
    """Looks at the loss of a batch and at its gradients. Raises Divergence where there is no going on."""

    training: Training
    number: int
    of: int
    indices_B: Tensor
    batch: Callable[[], Batch]
    ignorance: float

    def see_loss(self, loss: float) -> None:
        model = self.training.model
        if not math.isfinite(loss):
            batch = self.batch()
            in_data = not_finite_in(batch.x_BTI, batch.lengths_B, self.indices_B)
            raise self._divergence(f"The loss became {loss}", in_data or behind(model), bool(in_data))
        if self.training.losses.spiked(loss, self.ignorance):
            raise self._divergence(f"The loss rose to {loss:.3g} and stayed high", behind(model))

    def see_norm(self, norm: float) -> None:
        if not math.isfinite(norm):
            why = behind(self.training.model)
            raise self._divergence(f"The norm of the gradients became {norm}", why)

    def _divergence(self, what: str, why: str, in_data: bool = False) -> Divergence:
        place = f"in epoch {self.training.epoch + 1}, at batch {self.number + 1} of {self.of}"
        return Divergence(f"{what} {place}{why}", in_data)


class _Epoch:
    """The batches of the epoch that is on, and what its steps have come to since the host last looked.

    A CPU has each loss judged before the weights follow it. Another device works on by itself: each step
    leaves its loss, norm of the gradients and number of right answers there, in a row of `rows`, and the host
    looks at many rows at once, or where somebody wants to know. If one of them cannot be, training goes back
    to the look before and makes the same steps again, each of them judged: it ends where it would have ended
    on a CPU, and says the same.
    """

    def __init__(self, training: Training, train: SequenceDataset) -> None:
        recipe, weight = training.recipe, training.model.head.weight
        self.training, self.train = training, train
        self.indices = training.draw_batches(train)
        self.at_hand = train.at_hand(self.indices)
        self.total = sum(map(len, self.indices))
        self.ignorance = math.log(len(train.classes))
        self.steps = recipe.epochs * len(self.indices)
        self.every = _between_looks(weight.device)
        self.rows = torch.zeros(self.every, 3, dtype=weight.dtype, device=weight.device)
        self.unseen = 0
        self.before: Snapshot | None = None
        self.compiled = compiled_steps(training.model, recipe, train) if self.every == 1 else None

    def close(self) -> None:
        if self.compiled is not None:
            self.compiled.close()

    def run(self, after_batch: Callable[[int], None]) -> None:
        """Makes the steps that are left. Raises Divergence."""
        self._remember()
        for number in range(self.training.so_far.batches, len(self.indices)):
            self._step(number, judged=self.every == 1)
            if self.unseen == self.every or number + 1 == len(self.indices):
                self.look()
            after_batch(self.total)

    def batch(self, number: int) -> Batch:
        recipe, batch = self.training.recipe, self.train.batch(self.at_hand[number])
        if not recipe.augment.active:
            return batch
        changed = recipe.augment(batch.x_BTI, batch.lengths_B, recipe.layout, values=recipe.values)
        return Batch(changed[0], batch.y_B, changed[1])

    def judge(self, number: int, batch: Callable[[], Batch]) -> _Judge:
        return _Judge(self.training, number, len(self.indices), self.indices[number], batch, self.ignorance)

    def _step(self, number: int, judged: bool) -> None:
        training, so_far = self.training, self.training.so_far
        step = training.epoch * len(self.indices) + number
        so_far.learning_rate = _set_rate(training, step, self.steps)
        if judged:
            self._account(self.indices[number], self._judged(number))
        else:
            batch = self.batch(number)
            self.rows[self.unseen] = self._way_of(batch)(batch)
            self.unseen += 1
        so_far.batches += 1

    def _judged(self, number: int) -> list[float]:
        """Makes the step of a batch, if its numbers let it; what they are."""
        if self.compiled is None:
            batch = self.batch(number)
            found = _stepped(self.training, batch, self.judge(number, lambda: batch))
            return [one.item() for one in found]
        judge = self.judge(number, partial(self.batch, number))
        loss, norm, right = self.compiled(self.indices[number])
        judge.see_loss(loss)
        judge.see_norm(norm)
        make_step(self.training.torch_optimizer)
        return [loss, norm, right]

    def _way_of(self, batch: Batch) -> Callable[[Batch], Tensor]:
        """How to make the step of a batch: recorded, where it is wanted and all like it are of one size."""
        training = self.training
        make = partial(_row_of_step, training)
        alike = batch.lengths_B is None and len(batch.y_B) == training.recipe.batch_size
        if not (training.recipe.graph and alike):
            return make
        if training.recorded is None:
            training.recorded = RecordedStep(make, batch, training.unchanged())
        return training.recorded if training.recorded.fits(batch) else make

    def look(self) -> None:
        """Takes the rows that nobody has seen into the account. Raises Divergence."""
        if not self.unseen:
            return
        so_far = self.training.so_far
        rows = self.rows[: self.unseen].tolist()
        if self.every > 1 and any(map(self._cannot_be, rows)):
            self._once_more()
            return
        seen = self.indices[so_far.batches - self.unseen : so_far.batches]
        for indices_B, row in zip(seen, rows, strict=True):
            self._account(indices_B, row)
        self.unseen = 0
        self._remember()

    def _account(self, indices_B: Tensor, row: list[float]) -> None:
        so_far, (loss, _, right) = self.training.so_far, row
        so_far.seen += len(indices_B)
        so_far.correct += int(right)
        so_far.loss_sum += loss * len(indices_B)

    def _cannot_be(self, row: list[float]) -> bool:
        loss, norm, _ = row
        return not math.isfinite(loss + norm) or self.training.losses.spiked(loss, self.ignorance)

    def _remember(self) -> None:
        if self.every > 1:
            self.before = self.training.snapshot()

    def _once_more(self) -> None:
        """The steps since the last look, each of them judged."""
        assert self.before is not None
        end, every, self.unseen, self.every = self.training.so_far.batches, self.every, 0, 1
        self.training.go_back(self.before)
        for number in range(self.training.so_far.batches, end):
            self._step(number, judged=True)
        self.every = every
        self._remember()


def compiled_steps(model: SequenceClassifier, recipe: Recipe, train: SequenceDataset) -> CompiledSteps | None:
    """What makes the steps of a plain classifier on a CPU in machine code; None: it is not plain."""
    if recipe.focal or recipe.augment.active or not suits(model, train):
        return None
    from rnnclf.compiled_step import CompiledSteps

    weight_C = recipe.class_weights or (1.0,) * len(train.classes)
    return CompiledSteps(model, Loss(weight_C, recipe.label_smoothing), train, recipe.clip)


Found = tuple[Tensor, Tensor, Tensor]
"""Scalars: the loss of a batch, the norm of its gradients, the number of right answers."""


def _between_looks(device: torch.device) -> int:
    """Batches. A CPU has nothing to do meanwhile."""
    return 1 if device.type == "cpu" else LOOK_EVERY


def _differentiate(training: Training, batch: Batch, judge: _Judge | None = None) -> Found:
    """What a batch has come to: its loss, the norm of its gradients, the number of right answers.

    Leaves the gradients, clipped, for the optimizer. With a judge it waits for the numbers, and raises
    Divergence where there is no going on from them.
    """
    recipe = training.recipe
    logits_BK = training.model(batch.x_BTI, batch.lengths_B)
    loss = recipe.loss(logits_BK, batch.y_B)
    if judge is not None:
        judge.see_loss(loss.item())
    for weight in training.weights:
        weight.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in training.weights if weight.grad is not None]
    # as nn.utils.get_total_norm and clip_grads_with_norm_, which sort them by device and type each time
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if judge is not None:
        judge.see_norm(norm.item())
    if recipe.clip is not None:
        torch._foreach_mul_(gradients, (recipe.clip / (norm + 1e-6)).clamp(max=1.0))
    right = (logits_BK.detach().argmax(dim=-1) == batch.y_B).sum()
    return loss.detach(), norm, right


def _stepped(training: Training, batch: Batch, judge: _Judge | None = None) -> Found:
    """A step; returns what `_differentiate` does."""
    found = _differentiate(training, batch, judge)
    make_step(training.torch_optimizer)
    return found


def _row_of_step(training: Training, batch: Batch) -> Tensor:
    """A step without looking; what it found, (3,)."""
    loss, norm, right = _stepped(training, batch)
    return torch.stack((loss, norm, right.to(norm.dtype)))


def _set_rate(training: Training, step: int, total: int) -> float:
    recipe = training.recipe
    rate = recipe.optimizer.lr * recipe.schedule.factor(step, total) * training.rate_factor
    for group in training.torch_optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return rate


def _advice(training: Training, in_data: bool) -> str:
    if in_data:
        return "Leave such sequences out, or repair them."
    recipe = training.recipe
    ways = [f"a smaller learning rate (optimizer.lr is {recipe.optimizer.lr:g}"]
    ways[0] += f", halved {len(training.rollbacks)} times already)" if training.rollbacks else ")"
    if recipe.clip is None or recipe.clip > 1:
        ways.append("clipped gradients (clip=1)")
    if recipe.on_divergence == "stop":
        ways.append("on_divergence=rollback")
    return f"Try {', '.join(ways[:-1])} or {ways[-1]}." if len(ways) > 1 else f"Try {ways[0]}."
