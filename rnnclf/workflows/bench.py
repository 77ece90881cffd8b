"""Speed of cells on this machine, for each engine and for torch's own layers. Prints nothing.

Shapes: B batch, T time, I inputs, H hidden, K classes.
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.cells import Cell, GatedCell
from rnnclf.config import Config
from rnnclf.data import SequenceDataset, padded_dataset
from rnnclf.engine.choose import engines_on
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.optim import Adam, Constant, make_step
from rnnclf.options import Options, option
from rnnclf.stack import Stack
from rnnclf.training.eligibility import engine_used, is_eligible
from rnnclf.training.evaluation import score_model
from rnnclf.training.recipe import CrossEntropy, Recipe
from rnnclf.workflows.conformance import cell_named
from rnnclf.workflows.machine import device_in_words, hardware, keep_freed_memory, prepare

CLASSES = 10
WARM_UP, TURN = 2, 5  # maximum number of untimed, then of timed steps in a turn
LONG = 0.2  # maximum seconds of a turn, so that slow periods of the machine are shared by all candidates
REST = 0.02  # seconds of pause before a turn, for threads to go to sleep
PRODUCT = (4096, 1024, 1024)  # rows, inner, columns: large enough to reach the peak rate of the machine

TORCH_LAYERS: dict[str, Callable[..., nn.Module]] = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

Watch = Callable[[str], None]


@dataclass
class Bench(Options):
    """Settings of a benchmark: sizes of the model and its batches, and the time for each measurement."""

    hidden: int = option(150, "units of each layer", low=1, high=65_536)
    batch: int = option(150, "sequences of a training step", low=1, high=1_000_000)
    inference_batch: int = option(1000, "sequences that are classified at once", low=1, high=1_000_000)
    length: int = option(28, "steps of a sequence", low=1, high=1_000_000)
    inputs: int = option(28, "features of a step", low=1, high=1_000_000)
    layers: int = option(1, "layers on top of each other", low=1, high=1000)
    seconds: float = option(1.0, "time for each measurement", above=0, high=3600)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    threads: int | str = option("auto", "threads of the CPU, a number or auto", low=1, high=4096)

    def __post_init__(self) -> None:
        if isinstance(self.threads, str) and self.threads != "auto":
            try:
                self.threads = int(self.threads)
            except ValueError:
                message = f"threads must be a whole number or auto, got '{self.threads}'."
                raise ConfigError(message) from None
        super().__post_init__()

    def stack(self, engine: str) -> Stack:
        return Stack(layers=self.layers, engine=engine)


@dataclass(frozen=True)
class Measured:
    """The figures of one engine on one cell, or of torch's own layer.

    auto: whether engine=auto chooses it (it may choose two: the last of several layers can differ, and
        training from inference).
    training, inference: sequences per second.
    memory: peak memory of one training step in bytes, without weights and optimizer state.
    flops: FLOP/s in training, see `training_flops`; None if they are not counted.
    share: flops divided by the machine's product rate.
    """

    cell: str
    engine: str
    auto: bool
    training: float
    inference: float
    memory: int
    flops: float | None
    share: float | None


@dataclass(frozen=True)
class Machine:
    """product_rate: FLOP/s of the fastest of several large float32 matrix products."""

    hardware: str
    device: str
    torch: str
    product_rate: float


@dataclass(frozen=True)
class Benchmark:
    """All results; the rows of a cell are adjacent."""

    settings: Bench
    machine: Machine
    rows: list[Measured]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(words: Sequence[str], settings: Bench, watch: Watch = lambda what: None) -> Benchmark:
    """Measures each cell with each engine that can run it.

    Args:
        words: names of cells, or module:Class.
        watch: called with a description of each measurement when it begins.

    Raises:
        ConfigError: a cell is unknown, a cell does not support a size, or memory is insufficient.
    """
    cells = [cell_named(word)(hidden_size=settings.hidden) for word in dict.fromkeys(words)]
    for cell in cells:
        cell.check_size()
    device = prepare(Config(threads=settings.threads, device=settings.device))
    keep_freed_memory()
    with _explain_memory_errors():
        watch("the machine's product rate")
        machine = _machine(device, settings.seconds)
        rows = [row for cell in cells for row in _measure(cell, settings, machine, device, watch)]
    return Benchmark(settings, machine, rows)


@contextmanager
def _explain_memory_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        messages = ("can't allocate memory", "not enough memory", "out of memory")
        if not any(message in str(error) for message in messages):
            raise
        raise ConfigError(
            "There is not enough memory for this: reduce hidden, batch, inference_batch, length, inputs or"
            " layers."
        ) from error


def _machine(device: torch.device, seconds: float) -> Machine:
    facts = hardware(device)
    return Machine(
        hardware=facts["gpu"] or facts["cpu"],
        device=device_in_words(device) if device.type == "cpu" else device.type,
        torch=torch.__version__,
        product_rate=product_rate(device, seconds),
    )


def product_rate(device: torch.device, seconds: float) -> float:
    """FLOP/s of the fastest of several large float32 matrix products; a multiply-add counts as two."""
    rows, inner, columns = PRODUCT
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    out = torch.empty(rows, columns, device=device)
    (durations,) = alternated([lambda: torch.mm(a, b, out=out)], seconds, device)
    return 2 * rows * inner * columns / min(durations)


class TorchClassifier(nn.Module):
    """A SequenceClassifier built from torch's own layers: logits (B, K) of x (B, T, I)."""

    def __init__(self, layers: Callable[..., nn.Module], settings: Bench) -> None:
        super().__init__()
        self.layers = layers(settings.inputs, settings.hidden, num_layers=settings.layers, batch_first=True)
        self.head = nn.Linear(settings.hidden, CLASSES)

    def forward(self, x_BTI: Tensor) -> Tensor:
        outputs_BTH, _ = self.layers(x_BTI)
        logits_BK: Tensor = self.head(outputs_BTH[:, -1])
        return logits_BK


class Candidate:
    """A model and its optimizer; makes the functions to be timed: a training step, and inference."""

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name, self.model = name, model
        self.optimizer = Adam().build(model)

    @contextmanager
    def step_on(self, x_BTI: Tensor, y_B: Tensor) -> Iterator[Callable[[], None]]:
        """Yields a function that does one training step on a batch, by the same code as real training."""
        model, data = self.model, _as_data(x_BTI, y_B)
        if not isinstance(model, SequenceClassifier) or not is_eligible(model, data):
            yield partial(self.train, x_BTI, y_B)
            return
        from rnnclf.training.whole_step import WholeSteps

        compiled, all_B = WholeSteps(model, CrossEntropy.plain(CLASSES), data), torch.arange(len(y_B))

        def step() -> None:
            with self._cores(len(y_B)):
                compiled(all_B)
                make_step(self.optimizer)

        try:
            yield step
        finally:
            compiled.close()

    def train(self, x_BTI: Tensor, y_B: Tensor) -> None:
        """One training step with autograd."""
        with self._cores(len(y_B)):
            loss = functional.cross_entropy(self.model(x_BTI), y_B)
            loss.backward()  # type: ignore[no-untyped-call]
            make_step(self.optimizer)
            self.optimizer.zero_grad(set_to_none=True)

    def inference_on(self, x_BTI: Tensor, y_B: Tensor) -> Callable[[], None]:
        """A function that classifies a batch, by the same code as an evaluation."""
        model, data = self.model, _as_data(x_BTI, y_B)
        classify = partial(model, x_BTI)
        if isinstance(model, SequenceClassifier) and is_eligible(model, data):
            classify = partial(score_model, model, data)

        @torch.inference_mode()
        def infer() -> None:
            with self._cores(len(x_BTI)):
                classify()

        return infer

    def _cores(self, batch: int) -> AbstractContextManager[None]:
        return self.model.cores(batch) if isinstance(self.model, SequenceClassifier) else nullcontext()


def _as_data(x_BTI: Tensor, y_B: Tensor) -> SequenceDataset:
    return padded_dataset(x_BTI, y_B, tuple(map(str, range(CLASSES))))


def candidates(cell: Cell, settings: Bench, device: torch.device) -> list[Candidate]:
    """The cell with each of its engines, then torch's own layer if there is one."""
    models: dict[str, nn.Module] = {
        engine: SequenceClassifier(cell, settings.inputs, CLASSES, settings.stack(engine))
        for engine in engines_on(device.type, cell)
    }
    if cell.name in TORCH_LAYERS:
        models["torch"] = TorchClassifier(TORCH_LAYERS[cell.name], settings)
    return [Candidate(name, model.to(device)) for name, model in models.items()]


def _measure(
    cell: Cell, settings: Bench, machine: Machine, device: torch.device, watch: Watch
) -> Iterator[Measured]:
    """Yields a row for each candidate of a cell."""
    models = candidates(cell, settings, device)
    x_BTI, y_B = _batch(settings, settings.batch, device)
    watch(f"{cell.name}: training with {', '.join(c.name for c in models)}")
    with ExitStack() as contexts:
        steps = [contexts.enter_context(c.step_on(x_BTI, y_B)) for c in models]
        training = alternated(steps, settings.seconds, device)
    watch(f"{cell.name}: memory")
    memory = [_memory_of_step(candidate, x_BTI, y_B, device) for candidate in models]
    watch(f"{cell.name}: inference with {', '.join(c.name for c in models)}")
    x_BTI, y_B = _batch(settings, settings.inference_batch, device)
    inference = alternated([c.inference_on(x_BTI, y_B) for c in models], settings.seconds, device)
    chosen = chosen_by_auto(cell, settings, device)
    counted = training_flops(cell, settings)
    for candidate, train, infer, held in zip(models, training, inference, memory, strict=True):
        flops = None if counted is None else counted / median(train)
        yield Measured(
            cell=cell.name,
            engine=candidate.name,
            auto=candidate.name in chosen,
            training=settings.batch / median(train),
            inference=settings.inference_batch / median(infer),
            memory=held,
            flops=flops,
            share=None if flops is None else flops / machine.product_rate,
        )


def chosen_by_auto(cell: Cell, settings: Bench, device: torch.device) -> set[str]:
    """The engines that engine=auto takes, in training and in inference."""
    model = SequenceClassifier(cell, settings.inputs, CLASSES, settings.stack("auto")).to(device)
    recipe = Recipe(1, settings.batch, Adam(), Constant())
    training = engine_used(model, recipe, _as_data(*_batch(settings, 1, device)))
    return model.engines(device.type) | ({"machine"} if training.whole_steps else set())


def _batch(settings: Bench, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random x (B, T, I) and y (B)."""
    x_BTI = torch.randn(size, settings.length, settings.inputs, device=device)
    return x_BTI, torch.randint(CLASSES, (size,), device=device)


def _memory_of_step(candidate: Candidate, x_BTI: Tensor, y_B: Tensor, device: torch.device) -> int:
    """Peak bytes of the first step of a candidate, which includes the buffers that it allocates only once."""
    with candidate.step_on(x_BTI, y_B) as step:
        return peak_bytes(step, device)


def alternated(
    steps: Sequence[Callable[[], object]], seconds: float, device: torch.device
) -> list[list[float]]:
    """The durations of each step in seconds, measured for `seconds` per step on average.

    The steps take turns, equally often and in random order, so that other load on the machine, and the step
    that ran before, affect all of them alike. A turn is a pause, a few untimed steps and a few timed ones:
    in training, a step follows another of the same kind. The pause is needed because the threads of an engine
    keep spinning for a while after its last step, on the cores that the next one needs.
    """
    for step in steps:
        step()
    longest = max(_duration(step, device) for step in steps)
    turn = max(1, min(TURN, int(LONG / max(longest, 1e-9))))
    durations: list[list[float]] = [[] for _ in steps]
    spent, order = 0.0, random.Random(0)
    while not durations[0] or spent < seconds * len(steps):
        for step, own in order.sample(list(zip(steps, durations, strict=True)), len(steps)):
            _wait(device)
            time.sleep(REST)
            for _ in range(min(WARM_UP, turn)):
                step()
            own += [_duration(step, device) for _ in range(turn)]
            spent += sum(own[-turn:])
    return durations


def _duration(step: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    """Waits until the device has finished all submitted work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def training_flops(cell: Cell, settings: Bench) -> int | None:
    """FLOPs of the matrix products in one training step of a gated cell; None for other cells.

    With N_W and N_U weights in W (input_weight) and U (recurrent_weight), a layer needs

        2 B (2 T N_W + 3 (T - 1) N_U)        with 3 T N_W instead of 2 T N_W above the first layer.

    A multiply-add counts as two. Each weight takes part in a forward product, in one for its own gradient and
    in one for the gradient of its operand, which the inputs of the first layer do not need. The initial state
    is zero, so products with it are not needed, though an engine may compute them. Element-wise operations
    and the head are not counted.
    """
    if not isinstance(cell, GatedCell):
        return None
    total = 0
    for layer in range(settings.layers):
        specs = cell.parameters(settings.hidden if layer else settings.inputs)
        n_w, n_u = (torch.Size(specs[name].shape).numel() for name in ("input_weight", "recurrent_weight"))
        total += (3 if layer else 2) * settings.length * n_w + 3 * (settings.length - 1) * n_u
    return 2 * settings.batch * total


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """The peak memory that `step` allocates, in bytes: from torch's allocator and, on a CPU, also from those
    of NumPy and Python, whose peak is added to torch's."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    of_python = []

    def traced() -> None:
        tracemalloc.start()  # NumPy reports the memory of its arrays to it
        try:
            step()
            of_python.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    of_torch = max(accumulate(_allocations(traced)), default=0)
    return max(of_torch, 0) + of_python[0]


def _allocations(step: Callable[[], object]) -> list[int]:
    """Allocations (positive) and deallocations (negative) of `step` in bytes, in order of time.

    Torch's profiler also sees temporary memory inside an operation, which autograd's hooks do not.
    """
    with _silent_stderr(), torch.autograd.profiler.profile(profile_memory=True) as profile:
        step()
    assert profile.kineto_results is not None
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silences file descriptor 2: the profiler's library logs to it, whatever its settings."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
