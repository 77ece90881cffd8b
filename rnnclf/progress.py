"""Where a training stands: all that is kept to go on after an interruption, and the ways back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rnnclf.data import SequenceDataset
from rnnclf.data.order import epoch_batches
from rnnclf.guards import Losses
from rnnclf.model import SequenceClassifier
from rnnclf.recipe import Recipe
from rnnclf.recorded import RecordedStep, make_recordable

ROLLBACKS = 5  # of a run at most, each with half the learning rate of the one before

T = TypeVar("T")


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
        safe = _without_prefix(tensors, "safe.")
        try:
            if safe:  # first, which shows that it fits, too
                self._restore(safe, state["safe"])
            self._restore(tensors, state)
            self.safe = (safe, state["safe"]) if safe else None
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"it does not hold the state of such a training ({error})") from error

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self._restore_place(tensors, state)
        self._restore_weights(tensors)
        self._set_random(tensors)

    def _restore_place(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.epoch = _count(state["epoch"])
        self.so_far = _made(EpochSoFar, state["so_far"])
        if not self.so_far.batches <= self.so_far.seen >= self.so_far.correct:
            raise ValueError("its counts cannot be")
        self.rollbacks = [_made(Rollback, rollback) for rollback in state["rollbacks"]]
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
