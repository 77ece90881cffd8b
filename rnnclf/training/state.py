"""Resumable training state and rollback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rnnclf.data import SequenceDataset
from rnnclf.data.order import epoch_batches
from rnnclf.model import SequenceClassifier
from rnnclf.training.averaging import WeightAverage
from rnnclf.training.cuda_graph import CapturedStep, make_capturable
from rnnclf.training.divergence import Losses
from rnnclf.training.gradient_norms import GradientNorms
from rnnclf.training.recipe import Recipe

ROLLBACKS = 5  # per run; each halves the learning rate

T = TypeVar("T")


@dataclass(frozen=True)
class BatchProgress:
    """Progress after a batch: the current epoch, counted from 1, and the sequences of it whose results have
    been read from the device: how many, of how many in the epoch, how many of them classified correctly."""

    epoch: int
    seen: int
    of: int
    correct: int


@dataclass
class EpochSoFar:
    """The unfinished epoch: its batches so far, and sums over the sequences whose results have been read.

    `norms` counts the steps whose gradient norms are in the fields after it: fewer than all if the epoch was
    begun by a version that did not keep them.
    """

    batches: int = 0
    seen: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    learning_rate: float = 0.0
    """Of the last step."""
    seconds: float = 0.0
    norms: int = 0
    norm_sum: float = 0.0
    largest_norm: float = 0.0
    clipped: int = 0

    def add(self, sequences: int, loss: float, norm: float, correct: int, clip: float | None) -> None:
        """Adds the results of a step. norm: of its gradients before they were clipped."""
        self.seen += sequences
        self.correct += correct
        self.loss_sum += loss * sequences
        self.norms += 1
        self.norm_sum += norm
        self.largest_norm = max(self.largest_norm, norm)
        self.clipped += clip is not None and norm > clip

    @property
    def gradient_norms(self) -> GradientNorms | None:
        if not self.norms:
            return None
        return GradientNorms(self.norm_sum / self.norms, self.largest_norm, self.clipped / self.norms)


@dataclass(frozen=True)
class Rollback:
    """A return to the start of an epoch: from which batch, and the factor on the learning rate since."""

    epoch: int
    batch: int
    factor: float
    reason: str


Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""Copies of `Training.tensors`, and `Training.state`."""


class Steps(Protocol):
    """The steps of the current epoch, whose results may still lie unread on the device."""

    def read_results(self) -> None: ...


@dataclass
class Training:
    """A model in training, with everything that is needed to resume it.

    `tensors` and `state` together are the resumable state; they can be taken between any two batches.
    """

    model: SequenceClassifier
    recipe: Recipe
    epoch: int = 0
    """Completed epochs."""
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    losses: Losses = field(default_factory=Losses)
    rollbacks: list[Rollback] = field(default_factory=list)
    torch_optimizer: torch.optim.Optimizer = field(init=False)
    weights: list[nn.Parameter] = field(init=False)
    """The trainable parameters."""
    stopped: str = ""
    """Why training ended before its last epoch, as a sentence; '' if it did not."""
    average: WeightAverage = field(init=False)
    result: dict[str, Tensor] = field(default_factory=dict)
    """The model's state as it was validated after the last epoch, with averaged weights if there are any. Not
    a copy: the next step changes it."""
    _epoch_random: Tensor | None = None
    """State of the CPU's random generator just before the batches of this epoch were drawn."""
    safe: Snapshot | None = None
    """The state at the start of this epoch, with on_divergence=rollback."""
    steps: Steps | None = None
    """The steps of the current epoch, while it runs."""
    captured: CapturedStep | None = None
    """The CUDA graph of a step. It holds the addresses of weights and optimizer state."""

    def __post_init__(self) -> None:
        self.torch_optimizer = self.recipe.optimizer.build(self.model)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.average = WeightAverage(self.recipe.average, self.model)
        if self.recipe.graph:
            make_capturable(self.torch_optimizer)

    @property
    def rate_factor(self) -> float:
        """The factor on the learning rate after all rollbacks."""
        return self.rollbacks[-1].factor if self.rollbacks else 1.0

    def read_results(self) -> None:
        """Reads the results of steps that are still on the device. Raises Divergence if one diverged."""
        if self.steps is not None:
            self.steps.read_results()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average, optimizer state, random generators and recent losses, by name.

        Reads pending results first, as `state` does, and so raises Divergence if one of the steps diverged.
        """
        self.read_results()
        tensors = self._learned() | self._random()
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors().items()}
        tensors["losses"] = torch.tensor(self.losses.recent, dtype=torch.float64)
        if self.so_far.batches and self._epoch_random is not None:
            tensors["random.epoch"] = self._epoch_random
            safe = {} if self.safe is None else self.safe[0]
            tensors |= {f"safe.{name}": tensor for name, tensor in safe.items()}
        return tensors

    def _learned(self) -> dict[str, Tensor]:
        """The tensors that a step changes, not copied."""
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
        """Undoes the steps that are made within it, writing the old values into the same memory."""
        before, random = {name: tensor.clone() for name, tensor in self._learned().items()}, self._random()
        yield
        with torch.no_grad():
            for name, tensor in self._learned().items():
                # an optimizer has no state before its first step, which means zeros
                tensor.copy_(before[name]) if name in before else tensor.zero_()
        self._set_random(random)

    def state(self) -> dict[str, Any]:
        """The rest as JSON-ready data: the position in the epoch, counters, rollbacks."""
        self.read_results()
        state = {
            "epoch": self.epoch,
            "so_far": asdict(self.so_far),
            "high_losses": self.losses.high,
            "averaged": self.average.count,
            "stopped": self.stopped,
            "rollbacks": [asdict(rollback) for rollback in self.rollbacks],
        }
        if self.so_far.batches and self.safe is not None:
            state["safe"] = self.safe[1]
        return state

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `tensors` and `state` returned. Raises ValueError if they do not fit this model."""
        self.captured = None  # it holds addresses, and the optimizer's state moves
        safe = _without_prefix(tensors, "safe.")
        try:
            if safe:  # restored first, which checks it
                self._restore(safe, state["safe"])
            self._restore(tensors, state)
            self.safe = (safe, state["safe"]) if safe else None
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"it does not hold the state of such a training ({error})") from error

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self._restore_place(tensors, state)
        self._restore_weights(tensors)
        averaged = _count(state.get("averaged", 0))  # older checkpoints know no average
        self.average.restore(_without_prefix(tensors, "average."), averaged)
        self._set_random(tensors)

    def _restore_place(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.epoch = _count(state["epoch"])
        self.so_far = _from_plain(EpochSoFar, state["so_far"])
        self.stopped = _text(state.get("stopped", ""))  # older checkpoints have none
        so_far = self.so_far
        if not (so_far.batches <= so_far.seen >= so_far.correct and so_far.norms >= so_far.clipped):
            raise ValueError("its counts are impossible")
        self.rollbacks = [_from_plain(Rollback, rollback) for rollback in state["rollbacks"]]
        recent = tensors["losses"].tolist()
        self.losses = Losses(recent, _count(state["high_losses"]))
        self._epoch_random = tensors["random.epoch"] if self.so_far.batches else None

    def _restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(_without_prefix(tensors, "model."))
        weights = dict(self.model.named_parameters())
        memory: dict[str, dict[str, Tensor]] = {}
        for full_name, tensor in _without_prefix(tensors, "optimizer.").items():
            key, name = full_name.split(".", 1)
            if tensor.ndim and tensor.shape != weights[name].shape:
                raise ValueError(f"the optimizer state does not fit {name}")
            memory.setdefault(name, {})[key] = tensor.clone()
        names = {weight: name for name, weight in weights.items()}
        order = [names[weight] for group in self.torch_optimizer.param_groups for weight in group["params"]]
        # load_state_dict puts each part on the device where the optimizer wants it
        state = {index: memory[name] for index, name in enumerate(order) if name in memory}
        self.torch_optimizer.load_state_dict({**self.torch_optimizer.state_dict(), "state": state})

    def draw_batches(self, train: SequenceDataset) -> list[Tensor]:
        """The batches of this epoch. In the middle of an epoch, they are drawn again from the same state."""
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

    def restore_within_epoch(self, snapshot: Snapshot) -> None:
        """Restores a snapshot of this epoch, and keeps what belongs to the epoch's start."""
        random, safe = self._epoch_random, self.safe
        self.restore(*snapshot)
        self._epoch_random, self.safe = random, safe

    def mark_safe(self) -> None:
        """Makes this the state that `roll_back` returns to."""
        self.safe = self.snapshot()

    @property
    def can_roll_back(self) -> bool:
        """Whether rollback is on, has attempts left, and would change anything."""
        if self.safe is None or len(self.rollbacks) == ROLLBACKS:
            return False
        return bool(self.so_far.batches) or self.epoch != self.safe[1]["epoch"]

    def roll_back(self, reason: str) -> Rollback:
        """Returns to the safe state with half the learning rate."""
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


_IS_VALID: dict[Any, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int and value >= 0,
    "float": lambda value: isinstance(value, float) and math.isfinite(value),
    "str": lambda value: isinstance(value, str),
}


def _from_plain(kind: type[T], plain: Mapping[str, Any]) -> T:
    """A dataclass from JSON. Raises TypeError or ValueError for values of other types."""
    made = kind(**plain)
    for name, value in vars(made).items():
        if not _IS_VALID[kind.__annotations__[name]](value):
            raise ValueError(f"{name} must not be {value!r}")
    return made


def _text(value: Any) -> str:
    if not _IS_VALID["str"](value):
        raise ValueError(f"{value!r} is not a text")
    return str(value)


def _count(value: Any) -> int:
    if not _IS_VALID["int"](value):
        raise ValueError(f"{value!r} is not a count")
    return int(value)
