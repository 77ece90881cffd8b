"""Answers of a trained classifier while its sequences arrive, a step at a time. Prints nothing.

Shapes: C channels, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnclf.data.matching import UNIT
from rnnclf.data.own import OwnData
from rnnclf.data.step_lines import Step, StepLines, Wanted
from rnnclf.data.table import Table
from rnnclf.data.table.cells import Missing
from rnnclf.errors import ConfigError, DataError
from rnnclf.export.step import ClassifierStep, Memory, refuse_streaming
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.setup import register
from rnnclf.registry import did_you_mean
from rnnclf.workflows import machine
from rnnclf.workflows.early import promise
from rnnclf.workflows.loading import Loaded, load_model, one_checkpoint, with_times_told

FREE_KEYS = ("dataset", "threads", "plugins")
FIXED = ("device=cpu", "precision=float32")
ENOUGH = 100  # intervals between steps that tell whether times are in another unit

ONE = torch.ones(1)  # the time between steps without times

Note = Callable[[str], None]


class Answer(NamedTuple):
    """What the classifier says of a sequence after a step.

    id: of the sequence, or its number from 0 if lines have none. step: the number of the step, from 1 on.
    place: of the most probable class. probability_K: of each class.
    """

    id: str | int
    step: int
    place: int
    probability_K: list[float]


@dataclass(frozen=True)
class Choice:
    """Which answers are given: after every so many steps of a sequence or, of windows, for every so many; or
    one for each sequence.

    last: at its end. when: as soon as a class is so probable, otherwise at its end.
    sequences: how many are kept apart. skip_bad: whether lines that cannot be read are left out.
    """

    every: int = 1
    last: bool = False
    when: float | None = None
    sequences: int = 10_000
    skip_bad: bool = False

    def __post_init__(self) -> None:
        given = {"--every": self.every != 1, "--last": self.last, "--when": self.when is not None}
        if len(both := [word for word, yes in given.items() if yes]) > 1:
            raise ConfigError(f"{both[0]} and {both[1]} do not go together: leave one out.")
        if self.when is not None and not 0 < self.when < 1:
            raise ConfigError(f"--when must be a probability between 0 and 1, got {self.when:g}.")

    @property
    def once(self) -> bool:
        """Whether each sequence gets one answer."""
        return self.last or self.when is not None


class _Run(NamedTuple):
    """The steps from some point on that one answer is about: those of a sequence, or of a window.

    logits: None before the first step that is not left out.
    """

    memory: Memory
    steps: int = 0
    logits: Tensor | None = None


@dataclass
class _Sequence:
    """What is kept of a sequence that goes on.

    runs: one, or of windows those that have begun, the oldest first. answer: the last one, if it may have to
    be given at the end. decided: whether its only answer has been given.
    """

    id: str | int
    steps: int = 0
    time: int | float | None = None
    runs: list[_Run] = field(default_factory=list)
    answer: Answer | None = None
    decided: bool = False


@dataclass
class _Bad:
    """How many lines could not be read, and why the first one."""

    count: int = 0
    first: DataError | None = None

    def add(self, error: DataError) -> None:
        self.count, self.first = self.count + 1, self.first or error


class Stream:
    """A classifier that takes lines and gives answers.

    classes: the names of its classes.
    """

    def __init__(
        self, path: Path, words: Sequence[str], choice: Choice, note: Note = lambda text: None
    ) -> None:
        """note: takes remarks for the user, as sentences.

        Raises an RnnclfError if `path` holds no model, or one that cannot answer step by step.
        """
        _register(parsed(list(words)))
        own = [] if any(word.startswith("threads=") for word in words) else ["threads=1"]
        loaded = with_times_told(load_model(one_checkpoint(path), [*words, *own, *FIXED]))
        self.choice, self.classes, self._note = choice, loaded.learned.classes, note
        self._preparation = loaded.learned.preparation
        refuse_streaming(loaded.model.stack, self._preparation)
        self._window = _window_of(loaded)
        if choice.when is not None:
            note(promise(loaded.checkpoint, choice.when))
        machine.prepare(loaded.config)
        self._wanted = _wanted(loaded)
        self._step = ClassifierStep(loaded.model.eval(), self._preparation)
        self._step.use_native_cells()
        self._start, self._temperature = self._step.beginning(), loaded.checkpoint.temperature
        self._drops = self._preparation.missing == "drop"
        self._open: OrderedDict[str | int, _Sequence] = OrderedDict()
        self._number = self._dropped = 0
        self._intervals: list[float] = []

    def answers(self, lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[Answer]:
        """The answers to lines of text, each with its number, as these arrive.

        name: what messages call their source. Raises DataError for a line that cannot be read, unless such
        lines are left out, and if there is none that can.
        """
        reader, begun, steps = StepLines(name, self._wanted), False, 0
        bad = _Bad()
        with torch.inference_mode():
            for line, text in lines:
                if not text.strip():
                    if not reader.id:
                        yield from self._ended()
                    continue
                if not begun:
                    begun, is_header = True, reader.begin(text, line)
                    for sentence in reader.notes:
                        self._note(sentence)
                    if is_header:
                        continue
                try:
                    due = self._after(reader.step(text, line), reader)
                except DataError as error:
                    if not self.choice.skip_bad:
                        raise
                    bad.add(error)
                    continue
                steps += 1
                yield from due
        yield from self._ended()
        if not steps:
            raise DataError(_nothing(name, begun, bad))
        self._conclude(bad)

    def _after(self, step: Step, reader: StepLines) -> list[Answer]:
        """The answers that are due after a step. Raises DataError, and then nothing has changed."""
        key: str | int = self._number if step.id is None else step.id
        sequence = self._open.get(key) or _Sequence(key)
        if sequence.decided:
            return self._kept(sequence)
        place = f"{reader.name}, line {step.line}"
        elapsed = self._elapsed(step, sequence, reader.unit, place)
        runs, logits = self._advanced(sequence, step, elapsed), None
        if self._window:
            if runs and runs[0].steps == self._window[0]:
                logits, runs = runs[0].logits, runs[1:]
        elif not self._leaves_out(step):
            logits = runs[0].logits
        answer = None if logits is None else self._answer(sequence, logits, place)
        sequence.runs, sequence.steps, sequence.time = runs, sequence.steps + 1, step.time
        due = [] if answer is None else self._due(sequence, answer)
        return [*self._kept(sequence), *due]

    def _elapsed(self, step: Step, sequence: _Sequence, unit: float, place: str) -> float:
        """The time since the step before; 1 without times. Raises DataError if it goes back."""
        if step.time is None:
            return 1.0
        if sequence.time is None:
            return 0.0
        passed = (step.time - sequence.time) / unit
        if passed < 0:
            whose = "" if step.id is None else f" of '{step.id}'"
            raise DataError(f"{place}: the time is before that of the last step{whose}.")
        if len(self._intervals) < ENOUGH:
            self._intervals.append(passed)
            if len(self._intervals) == ENOUGH:
                self._doubt_unit(sum(self._intervals) / ENOUGH)
        return passed

    def _doubt_unit(self, interval: float) -> None:
        ratio = interval / self._preparation.interval
        if self._preparation.missing == "mask" and not 1 / UNIT < ratio < UNIT:
            way, by = ("further apart", ratio) if ratio > 1 else ("closer together", 1 / max(ratio, 1e-9))
            self._note(
                f"The first steps are {by:,.0f} times {way} than those of the training data: are their times"
                " in another unit?"
            )

    def _leaves_out(self, step: Step) -> bool:
        return self._drops and any(value != value for value in step.values_C)

    def _advanced(self, sequence: _Sequence, step: Step, elapsed: float) -> list[_Run]:
        """The runs of a sequence after a step."""
        runs = sequence.runs
        if sequence.steps % self._window[1] == 0 if self._window else not runs:
            runs = [*runs, _Run(self._start)]
        if self._leaves_out(step):
            return [run._replace(steps=run.steps + 1) for run in runs]
        found = []
        x = torch.tensor([step.values_C], dtype=self._step.dtype)
        passed = ONE if elapsed == 1 else torch.tensor([elapsed])
        for run in runs:
            logits, memory = self._step.advance(x, passed, run.memory)
            found.append(_Run(memory, run.steps + 1, logits))
        return found

    def _answer(self, sequence: _Sequence, logits: Tensor, place: str) -> Answer | None:
        """The answer after the next step, None if none is due. Raises DataError unless it is finite."""
        logit_K = logits[0].tolist()
        if not math.isfinite(sum(logit_K)):
            raise DataError(f"{place}: the answer is not finite. Are the values in the usual units?")
        number = count = sequence.steps + 1
        if self._window:
            count = (number - self._window[0]) // self._window[1] + 1
        if count % self.choice.every:
            return None
        return Answer(sequence.id, number, logit_K.index(max(logit_K)), _softmax(logit_K, self._temperature))

    def _due(self, sequence: _Sequence, answer: Answer) -> list[Answer]:
        """The answer after a step if it is due now; otherwise it is kept."""
        choice = self.choice
        if not choice.once:
            return [answer]
        if choice.when is None or answer.probability_K[answer.place] < choice.when:
            sequence.answer = answer
            return []
        sequence.decided, sequence.answer, sequence.runs = True, None, []
        return [answer]

    def _kept(self, sequence: _Sequence) -> list[Answer]:
        """Keeps a sequence as the latest, and forgets the oldest if there are too many: its answers."""
        self._open[sequence.id] = sequence
        self._open.move_to_end(sequence.id)
        if len(self._open) <= self.choice.sequences:
            return []
        _, oldest = self._open.popitem(last=False)
        self._dropped += 1
        if self._dropped == 1:
            self._note(
                f"More than {self.choice.sequences:,} sequences are open: '{oldest.id}', which has waited"
                " longest for a step, is dropped, and begins anew if it goes on. To keep more, set"
                " --sequences."
            )
        return [] if oldest.answer is None else [oldest.answer]

    def _ended(self) -> list[Answer]:
        """The answers of all sequences, which end here, in the order in which they began."""
        answers = [sequence.answer for sequence in self._open.values() if sequence.answer is not None]
        self._number += bool(self._open)
        self._open.clear()
        return answers

    def _conclude(self, bad: _Bad) -> None:
        if self._dropped > 1:
            self._note(f"{self._dropped:,} sequences were dropped, because too many were open.")
        if bad.count:
            many = "1 line was" if bad.count == 1 else f"{bad.count:,} lines were"
            self._note(f"{many} left out; the first: {bad.first}")


def _softmax(logit_K: list[float], temperature: float) -> list[float]:
    """Probabilities in float64, for a few classes faster than by torch."""
    highest = max(logit_K)
    weight_K = [math.exp((logit - highest) / temperature) for logit in logit_K]
    total = sum(weight_K)
    return [weight / total for weight in weight_K]


def _nothing(name: str, begun: bool, bad: _Bad) -> str:
    if bad.count:
        return f"No line could be read; the first: {bad.first}"
    return (
        f"{name} has a header but no steps." if begun else f"{name} is empty: it needs a line for each step."
    )


def _register(values: Mapping[str, Any]) -> None:
    """Registers plugins. Raises ConfigError for words that mean nothing here."""
    for key in values:
        if key.split(".")[0] not in FREE_KEYS:
            hint = did_you_mean(key, FREE_KEYS)
            raise ConfigError(
                f"'{key}' cannot be changed for a stream: the checkpoint fixes it.{hint}"
                f" You can set {', '.join(FREE_KEYS)}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])


def _window_of(loaded: Loaded) -> tuple[int, int] | None:
    """The steps of a window, and those from the beginning of one to that of the next; None without windows.

    Raises ConfigError for durations, whose number of steps depended on the training data.
    """
    source = loaded.config.dataset
    if not isinstance(source, OwnData) or source.window is None:
        return None
    window, stride = source.window, source.window if source.step is None else source.step
    for key, value in (("window", window), ("step", stride)):
        if isinstance(value, str):
            raise ConfigError(
                f"The model was trained with dataset.{key}={value}, a duration, so the model cannot answer"
                " step by step: train with a number of steps."
            )
    return int(window), int(stride)


def _wanted(loaded: Loaded) -> Wanted:
    """What to look for in the lines: roles as in the training data, as far as these are known."""
    preparation, source = loaded.learned.preparation, loaded.config.dataset
    timed = bool(preparation.timed)
    wanted = Wanted(
        preparation.channels,
        preparation.vocabularies,
        gaps=preparation.missing != "error",
        timed=timed,
        needs_time=timed and preparation.missing == "mask",
    )
    if not isinstance(source, Table):
        return wanted
    id, time = _trained_roles(loaded)
    given = source.missing_values
    return replace(
        wanted,
        id=id if source.id is None else _listed(source.id),
        time=time if source.time is None else source.time,
        missing=Missing.given(None if given is None else tuple(given)),
        delimiter=source.delimiter,
        decimal=source.decimal,
        time_format=source.time_format,
    )


def _listed(id: Any) -> tuple[str, ...]:
    return tuple(map(str, id if isinstance(id, list | tuple) else [id]))


def _trained_roles(loaded: Loaded) -> tuple[tuple[str, ...] | None, str | None]:
    """The columns of id and time that training found; None where its checkpoint does not say."""
    known = loaded.checkpoint.header.get("training_data")
    columns = known.get("columns") if isinstance(known, dict) else None
    if not isinstance(columns, dict) or columns.get("form") != "long":
        return None, None
    id, time = columns.get("id"), columns.get("time")
    names = tuple(map(str, id)) if isinstance(id, list) else ()
    return names or None, str(time) if time else None
